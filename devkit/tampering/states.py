"""Tampering with the state of a container: whether it runs, its name, its place on the networks."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from clawker_fw.engine.archive import pack
from clawker_fw.stack.container import VOLUME
from clawker_fw.stack.files import public
from devkit.hand import Hand
from devkit.tampering.way import COREDNS, ENVOY, SIGNED, UPGRADE, Sign, Tampering, other_address, signs


def _stop_for_good(hand: Hand) -> None:
    policy = {"Name": "no", "MaximumRetryCount": 0}
    hand.docker.update_container(hand.name(ENVOY), restart_policy=policy)  # type: ignore[arg-type]
    hand.docker.kill(hand.name(ENVOY))
    hand.docker.wait(hand.name(ENVOY))


def _disconnect(sibling: str, end: str) -> Callable[[Hand], None]:
    return lambda hand: hand.docker.disconnect_container_from_network(
        hand.name(sibling), f"{hand.firewall.project}-{end}"
    )


def _leave_a_replacement(hand: Hand) -> None:
    recipe, name = hand.recipe(COREDNS), f"{hand.name(COREDNS)}-next"
    other_address(recipe.body)
    made = hand.docker.create_container_from_config(recipe.body, name)["Id"]  # type: ignore[no-untyped-call]
    hand.docker.put_archive(made, VOLUME, pack({"boot/x": public(b"")}))


def _take_the_service_address(hand: Hand) -> None:
    how = hand.firewall.status()["agent"]
    hand.peers.start("wait", network=how["network"], address=how["dns"])


def _take_an_envoy_s_address(hand: Hand) -> None:
    address = hand.address(ENVOY)
    network = f"{hand.firewall.project}-net"
    hand.docker.disconnect_container_from_network(hand.name(ENVOY), network)
    hand.peers.start("wait", network=network, address=address)


def _exchange_names(hand: Hand) -> None:
    hand.docker.rename(hand.name(ENVOY), f"{hand.firewall.project}-other")
    hand.docker.rename(hand.name(COREDNS), hand.name(ENVOY))
    hand.docker.rename(f"{hand.firewall.project}-other", hand.name(COREDNS))


def _have_the_other_s_name(hand: Hand) -> None:
    hand.take_away(COREDNS)
    hand.docker.rename(hand.name(ENVOY), hand.name(COREDNS))


_RENAMED = Sign(ENVOY, "state", "name", "rename")

STATES = (
    *(
        Tampering(f"{sibling} is {what}", done, (Sign(sibling, "state", "status", action),), beside="status")
        for sibling, what, done, action in (
            (ENVOY, "stopped", lambda hand: hand.docker.stop(hand.name(ENVOY)), "start"),
            (COREDNS, "paused", lambda hand: hand.docker.pause(hand.name(COREDNS)), "unpause"),
        )
    ),
    *(
        Tampering(
            f"{sibling} is removed",
            partial(Hand.take_away, sibling=sibling),
            (Sign(sibling, "state", "container", "create"),),
            beside,
        )
        for sibling, beside in ((ENVOY, "one removed"), (COREDNS, "recorder"))
    ),
    Tampering(
        "envoy is killed, and its restart policy removed",
        _stop_for_good,
        (Sign(ENVOY, "state", "status", "start"), Sign(ENVOY, "shape", "restart", "replace")),
        beside="without a record",
    ),
    Tampering(
        "envoy is renamed",
        lambda hand: hand.docker.rename(hand.name(ENVOY), f"{hand.firewall.project}-other"),
        (_RENAMED,),
        beside="beside a container",
    ),
    Tampering("envoy and coredns swap names", _exchange_names, (_RENAMED, replace(_RENAMED, sibling=COREDNS))),
    Tampering(
        "coredns is removed, and envoy is renamed to its name",
        _have_the_other_s_name,
        (_RENAMED, Sign(COREDNS, "state", "container", "create")),
    ),
    Tampering(
        "an unfinished replacement of coredns is left behind",
        _leave_a_replacement,
        (Sign(COREDNS, "state", "leftover.{project}-coredns-next", "remove", UPGRADE),),
        beside="beside a container",
    ),
    *(
        Tampering(
            f"envoy is disconnected from the {which} network",
            _disconnect(ENVOY, end),
            signs(ENVOY, "reattach", f"state/networks.{{project}}-{end}", "live/network"),
            beside,
        )
        for which, end, beside in (("egress", "egress", "without a way out"), ("agent", "net", "without agents"))
    ),
    Tampering(
        "coredns is disconnected from the agent network",
        _disconnect(COREDNS, "net"),
        signs(COREDNS, "reattach", "state/networks.{project}-net", "state/service_address", "live/network"),
        beside="signer",
    ),
    Tampering(
        "coredns is connected to the egress network",
        lambda hand: hand.docker.connect_container_to_network(
            hand.name(COREDNS), f"{hand.firewall.project}-egress"
        ),
        signs(COREDNS, "replace", "state/networks.{project}-egress", "live/network", "live/engine_files"),
    ),
    Tampering(
        "coredns releases the service address",
        lambda hand: hand.fwctl(COREDNS, "release"),
        (Sign(COREDNS, "state", "service_address", "claim"),),
        beside="beside a container",
    ),
    Tampering(
        "an agent is given the service address too",
        _take_the_service_address,
        (Sign(COREDNS, "state", "address.{service}", "detach"),),
        beside=SIGNED,
    ),
    Tampering(
        "envoy is disconnected, and an agent is given its address",
        _take_an_envoy_s_address,
        (
            *signs(ENVOY, "reattach", "state/networks.{project}-net", "live/network"),
            Sign(COREDNS, "state", "address.{envoy}", "detach"),
        ),
    ),
)
