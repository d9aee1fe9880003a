"""Verdicts on a real engine never come from incomplete observations, and forged answers have no effect."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from docker import APIClient

from devkit.firewall import Firewall
from devkit.hand import Hand
from devkit.peers import Peers
from devkit.waiting import until


def _warned(firewall: Firewall) -> dict[str, Any] | None:
    """Return the answer of `drift`, which must be `current`, if it has a warning; a busy host may miss one."""
    drift: dict[str, Any] = firewall.drift().expect().json
    return drift if drift["warnings"] else None


def test_a_spoofer_can_accuse_nobody(kept: Firewall, peers: Peers, docker: APIClient) -> None:
    """An agent that forges ARP answers in a neighbour's name causes a warning and no action."""
    kept.origin(peers, ["a.test", "h.test"])
    victim = kept.agent(peers)
    network = f"{kept.project}-net"
    hardware = docker.inspect_container(victim.container)["NetworkSettings"]["Networks"][network]["MacAddress"]
    hand = Hand(docker, kept, peers)
    before = {name: docker.inspect_container(kept.container(name))["Id"] for name in ("envoy", "coredns")}
    for address in (hand.service(), hand.address("coredns"), hand.address("envoy")):
        spoofer = kept.agent(peers, "spoof", address, hardware)
        until(lambda: any(line["event"] == "ready" for line in spoofer.said()))  # noqa: B023 - called at once
        drift = until(lambda: _warned(kept))
        assert any(line["event"] == "answered" for line in spoofer.said())
        assert (drift["verdict"], len(drift["warnings"])) == ("current", 1)
        assert address in drift["warnings"][0]["message"]
        assert hardware in drift["warnings"][0]["message"]
        assert kept.run().json["steps"] == []
        spoofer.remove()
    assert {name: docker.inspect_container(kept.container(name))["Id"] for name in before} == before
    assert victim.get("https://a.test/").ok
    # Only the container that has the address from the engine is detached.
    stranger = peers.start("wait", network=network, address=hand.service())
    field = f"address.{hand.service()}"
    assert ("coredns", "state", field, "tamper", "detach") in kept.drift().findings
    kept.run()
    assert network not in docker.inspect_container(stranger.container)["NetworkSettings"]["Networks"]
    assert victim.get("https://a.test/").ok


def test_a_look_while_containers_come_and_go(kept: Firewall, docker: APIClient) -> None:
    """A stack with other rules than desired is never called current, however often it restarts."""
    before = kept.settings.read_text()
    kept.write({"dst": "other.test"})
    over = threading.Event()

    def restart() -> None:
        while not over.is_set():
            docker.restart(kept.container("envoy"), timeout=0)

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        with ThreadPoolExecutor(2) as pool:  # at the same time, so that there are fewer restarts
            for drift in pool.map(lambda _: kept.drift(), range(2)):
                envoy = drift.json["siblings"][0]
                assert envoy["verdict"] != "current", envoy
    finally:
        over.set()
        restarting.join()
    kept.draining("1").run()
    assert kept.current()
    kept.settings.write_text(before)
    kept.call("reload").expect()
