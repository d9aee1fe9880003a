"""Every way in which a stack can be made to differ: how, what `drift` says of it, and what closes it.

The tests make each of them on a real engine; the page on tampering in the documentation is written from here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from clawker_fw.engine.archive import pack
from clawker_fw.stack import image_tar, labels
from clawker_fw.stack.container import ATTEMPT, COMMITTED, EYE, VOLUME
from clawker_fw.stack.coredns import POLICY
from clawker_fw.stack.envoy.sibling import LISTENERS, ROUTES
from clawker_fw.stack.files import public
from clawker_fw.stack.topology import lower_half
from devkit.engines import OTHER_RUNTIME
from devkit.hand import Body, Hand
from devkit.peers import peer_program
from devkit.stacks import installed_release

ENVOY, COREDNS = "envoy", "coredns"
TAMPER, UPGRADE, SETTINGS = "tamper", "upgrade", "settings"


@dataclass(frozen=True)
class Sign:
    """A finding that tells of it.

    A field may hold `{project}`, `{service}` and `{envoy}`: the stack's name, and the addresses of its DNS and,
    before anything was done, of its Envoy.
    """

    sibling: str
    layer: str
    field: str
    action: str
    cause: str = TAMPER

    def named(self) -> str:
        """Return the field with words for what differs from stack to stack."""
        field = self.field.format(project="PROJECT", service="SERVICE_ADDRESS", envoy="ENVOY_ADDRESS")
        return field.removeprefix(labels.PREFIX + "firewall.")


@dataclass(frozen=True)
class Tampering:
    """One way: what is done, in words and by hand, and everything that `drift` finds then."""

    what: str
    make: Callable[[Hand], None]
    signs: tuple[Sign, ...]


WITH_ANOTHER_RUNTIME = "with another runtime"
"""For this an engine needs a second one."""


# --- containers made anew -------------------------------------------------------------------------------------


def _anew(sibling: str, what: str, change: Callable[[Body], None], *fields: str) -> Tampering:
    """Return the way of making a container anew by hand: the engine tells how it was made, field by field."""
    signs = tuple(Sign(sibling, "shape", field, "replace") for field in fields)
    return Tampering(f"{sibling} is made anew {what}", lambda hand: hand.recreate(sibling, change), signs)


def _anew_with_files(what: str, change: Callable[[Body], None], field: str) -> Tampering:
    """Return the way of making Envoy anew so that the engine writes other files into it."""
    signs = (Sign(ENVOY, "shape", field, "replace"), Sign(ENVOY, "live", "engine_files", "replace"))
    return Tampering(f"envoy is made anew {what}", lambda hand: hand.recreate(ENVOY, change), signs)


def _host(**fields: Any) -> Callable[[Body], None]:  # noqa: ANN401 - any of the engine's
    return lambda body: body["HostConfig"].update(fields)


def _config(**fields: Any) -> Callable[[Body], None]:  # noqa: ANN401 - any of the engine's
    return lambda body: body.update(fields)


def _more(field: str, *values: str) -> Callable[[Body], None]:
    return lambda body: body.update({field: [*(body[field] or []), *values]})


def _more_host(field: str, *values: str) -> Callable[[Body], None]:
    return lambda body: body["HostConfig"].update({field: [*(body["HostConfig"][field] or []), *values]})


def _without_sysctls(body: Body) -> None:
    body["HostConfig"]["Sysctls"] = {"net.ipv4.ip_unprivileged_port_start": "0"}


def _other_entry(body: Body) -> None:
    body["Entrypoint"], body["Cmd"] = [*body["Entrypoint"], body["Cmd"][0]], body["Cmd"][1:]


def _published(body: Body) -> None:
    body["ExposedPorts"] = {"9/tcp": {}}
    body["HostConfig"]["PortBindings"] = {"9/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}


def _alias(body: Body) -> None:
    for endpoint in body["NetworkingConfig"]["EndpointsConfig"].values():
        endpoint["Aliases"] = ["example.com"]


def _other_address(body: Body) -> None:
    for endpoint in body["NetworkingConfig"]["EndpointsConfig"].values():
        first, _, last = endpoint["IPAMConfig"]["IPv4Address"].rpartition(".")
        endpoint["IPAMConfig"]["IPv4Address"] = f"{first}.{int(last) + 100}"


def _label(label: str, value: str | None) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        kept = {key: text for key, text in body["Labels"].items() if key != label}
        body["Labels"] = kept | ({label: value} if value is not None else {})

    return change


_DEVICE = {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/extra", "CgroupPermissions": "r"}

CONTAINERS = (
    _anew(ENVOY, "with another command", _more("Cmd", "--restart-epoch", "0"), "command"),
    _anew(COREDNS, "with another entry point", _other_entry, "command", "entrypoint"),
    _anew(COREDNS, "with a further variable", _more("Env", "GODEBUG=netdns=go"), "environment"),
    _anew(COREDNS, "as another user", _config(User="0"), "user"),
    _anew(ENVOY, "with a folder of the host", _host(Binds=["/etc/hostname:/etc/extra:ro"]), "mounts"),
    _anew(COREDNS, "with another tmpfs", _host(Tmpfs={"/tmp": "rw"}), "tmpfs"),  # noqa: S108 - inside the container
    _anew(COREDNS, "with a root that can be written to", _host(ReadonlyRootfs=False), "read_only"),
    Tampering(
        "coredns is made anew with all privileges, and not started",
        lambda hand: hand.recreate(COREDNS, _host(Privileged=True), start=False),
        (
            Sign(COREDNS, "state", "status", "start"),
            Sign(COREDNS, "shape", "privileged", "replace"),
            Sign(COREDNS, "shape", "security_options", "replace"),
        ),
    ),
    _anew(ENVOY, "with a further capability", _more_host("CapAdd", "SYS_TIME"), "capabilities_added"),
    _anew(COREDNS, "with capabilities that are dropped otherwise", _host(CapDrop=None), "capabilities_dropped"),
    _anew(COREDNS, "without no-new-privileges", _host(SecurityOpt=None), "security_options"),
    _anew(ENVOY, "without seccomp", _more_host("SecurityOpt", "seccomp=unconfined"), "security_options"),
    _anew(COREDNS, "without masks over /proc", _host(MaskedPaths=[], ReadonlyPaths=[]), "system_paths"),
    Tampering(
        "coredns is made anew with other sysctls",
        lambda hand: hand.recreate(COREDNS, _without_sysctls),
        (Sign(COREDNS, "shape", "sysctls", "replace"), Sign(COREDNS, "live", "network", "replace")),
    ),
    _anew(COREDNS, "with a device", _host(Devices=[_DEVICE]), "devices"),
    _anew(COREDNS, "with a rule for devices", _host(DeviceCgroupRules=["c 1:5 r"]), "device_rules"),
    _anew(ENVOY, "with another DNS server", _host(Dns=["192.0.2.1"]), "dns"),
    _anew_with_files("with a search domain", _host(DnsSearch=["example.com"]), "dns_search"),
    _anew_with_files("with options for DNS", _host(DnsOptions=["ndots:9"]), "dns_options"),
    _anew_with_files("with a name in its hosts file", _host(ExtraHosts=["a.test:192.0.2.1"]), "extra_hosts"),
    _anew(COREDNS, "with a further group", _host(GroupAdd=["100"]), "groups"),
    _anew(ENVOY, "with a published port", _published, "ports"),
    _anew(ENVOY, "with all ports published", _host(PublishAllPorts=True), "publish_all"),
    _anew(COREDNS, "in the host's IPC namespace", _host(IpcMode="host"), "ipc_mode", "security_options"),
    Tampering(
        "coredns is made anew in the host's UTS namespace",
        lambda hand: hand.recreate(COREDNS, _host(UTSMode="host")),
        (Sign(COREDNS, "shape", "uts_mode", "replace"), Sign(COREDNS, "live", "engine_files", "replace")),
    ),
    _anew(COREDNS, "with a limit on processors", _host(NanoCpus=500_000_000), "processors"),
    _anew(ENVOY, "with more memory", _host(Memory=2 << 30, MemorySwap=4 << 30), "memory"),
    _anew(COREDNS, "with another limit on processes", _host(PidsLimit=64), "pids"),
    _anew(COREDNS, "without a restart policy", _host(RestartPolicy={"Name": "no"}), "restart"),
    _anew(COREDNS, "without a health check", _config(Healthcheck={"Test": ["NONE"]}), "healthcheck"),
    _anew(COREDNS, "with another log", _host(LogConfig={"Type": "none", "Config": {}}), "log"),
    Tampering(
        "coredns is made anew in the host's PID namespace",
        lambda hand: hand.recreate(COREDNS, _host(PidMode="host")),
        tuple(
            Sign(COREDNS, layer, field, "replace")
            for layer, field in (
                ("shape", "pid_mode"),
                ("shape", "security_options"),  # an engine that shares this namespace labels no processes
                ("live", "processes"),
                ("live", "program"),
            )
        ),
    ),
    _anew(COREDNS, WITH_ANOTHER_RUNTIME, _host(Runtime=OTHER_RUNTIME), "runtime"),
    _anew(COREDNS, "with another name on its network", _alias, "aliases"),
    Tampering(
        "coredns is made anew at another address",
        lambda hand: hand.recreate(COREDNS, _other_address),
        (
            Sign(COREDNS, "state", "networks.{project}-net", "replace"),
            Sign(COREDNS, "live", "network", "replace"),
            Sign(COREDNS, "live", "engine_files", "replace"),
        ),
    ),
    Tampering(
        "coredns is made anew without one of the three labels",
        lambda hand: hand.recreate(COREDNS, _label(labels.STACK_BUILD_SHA, None)),
        (Sign(COREDNS, "labels", labels.STACK_BUILD_SHA, "replace"),),
    ),
    Tampering(
        "envoy is made anew with another value in one of the three labels",
        lambda hand: hand.recreate(ENVOY, _label(labels.OTEL_INFRA_PORT, "1")),
        (Sign(ENVOY, "labels", labels.OTEL_INFRA_PORT, "replace", SETTINGS),),
    ),
    Tampering(
        "coredns is made anew with a record that can't be read of what it was made with",
        lambda hand: hand.recreate(COREDNS, _label(labels.APPLIED, '{"applied": []}')),
        (Sign(COREDNS, "labels", labels.APPLIED, "replace"),),
    ),
)


# --- images ---------------------------------------------------------------------------------------------------


def _reference(hand: Hand, sibling: str) -> str:
    return str(hand.inspect(sibling)["Config"]["Image"])


def _other_image(hand: Hand, reference: str) -> None:
    """Load an image with other bytes, under a name that is somebody else's or ours."""
    release = installed_release()
    name, _, version = reference.rpartition(":")
    program = release.binary("coredns", hand.docker.version()["Arch"])
    entries = (image_tar.Entry("coredns", program, 0o755), image_tar.Entry("extra", link="/coredns"))
    other = image_tar.BuiltImage(name, "other", hand.docker.version()["Arch"], entries, release.digests, labels={})
    for line in hand.docker.load_image(other.archive()):  # type: ignore[no-untyped-call]
        if "error" in line:
            raise RuntimeError(line["error"])
    hand.docker.tag(other.reference, name, version)
    hand.docker.remove_image(other.reference)


def _run_other_image(hand: Hand) -> None:
    _other_image(hand, "test/other:1")
    hand.recreate(COREDNS, _config(Image="test/other:1"))


IMAGES = (
    Tampering(
        "coredns is made anew from an image with other bytes",
        _run_other_image,
        (Sign(COREDNS, "image", "id", "replace"),),
    ),
    Tampering(
        "the tag of coredns' image is moved to another image",
        lambda hand: _other_image(hand, _reference(hand, COREDNS)),
        (Sign(COREDNS, "image", "reference", "load"),),
    ),
    Tampering(
        "the tag of envoy's image is taken away",
        lambda hand: hand.docker.remove_image(_reference(hand, ENVOY), force=True),
        (Sign(ENVOY, "image", "reference", "load"),),
    ),
)


# --- states ---------------------------------------------------------------------------------------------------


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
    _other_address(recipe.body)
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
    hand.docker.remove_container(hand.name(COREDNS), force=True, v=True)
    hand.docker.rename(hand.name(ENVOY), hand.name(COREDNS))


STATES = (
    Tampering(
        "envoy is stopped",
        lambda hand: hand.docker.stop(hand.name(ENVOY)),
        (Sign(ENVOY, "state", "status", "start"),),
    ),
    Tampering(
        "coredns is stopped",
        lambda hand: hand.docker.stop(hand.name(COREDNS)),
        (Sign(COREDNS, "state", "status", "start"),),
    ),
    Tampering(
        "envoy is killed, its restart policy taken away",
        _stop_for_good,
        (Sign(ENVOY, "state", "status", "start"), Sign(ENVOY, "shape", "restart", "replace")),
    ),
    Tampering(
        "envoy is paused",
        lambda hand: hand.docker.pause(hand.name(ENVOY)),
        (Sign(ENVOY, "state", "status", "unpause"),),
    ),
    Tampering(
        "coredns is paused",
        lambda hand: hand.docker.pause(hand.name(COREDNS)),
        (Sign(COREDNS, "state", "status", "unpause"),),
    ),
    Tampering(
        "envoy is removed",
        lambda hand: hand.docker.remove_container(hand.name(ENVOY), force=True, v=True),
        (Sign(ENVOY, "state", "container", "create"),),
    ),
    Tampering(
        "coredns is removed",
        lambda hand: hand.docker.remove_container(hand.name(COREDNS), force=True, v=True),
        (Sign(COREDNS, "state", "container", "create"),),
    ),
    Tampering(
        "envoy is given another name",
        lambda hand: hand.docker.rename(hand.name(ENVOY), f"{hand.firewall.project}-other"),
        (Sign(ENVOY, "state", "name", "rename"),),
    ),
    Tampering(
        "envoy and coredns exchange their names",
        _exchange_names,
        (Sign(ENVOY, "state", "name", "rename"), Sign(COREDNS, "state", "name", "rename")),
    ),
    Tampering(
        "coredns is removed, and envoy given its name",
        _have_the_other_s_name,
        (Sign(ENVOY, "state", "name", "rename"), Sign(COREDNS, "state", "container", "create")),
    ),
    Tampering(
        "a replacement of coredns is left behind",
        _leave_a_replacement,
        (Sign(COREDNS, "state", "leftover.{project}-coredns-next", "remove", UPGRADE),),
    ),
    Tampering(
        "envoy is taken off the way out",
        _disconnect(ENVOY, "egress"),
        (
            Sign(ENVOY, "state", "networks.{project}-egress", "reattach"),
            Sign(ENVOY, "live", "network", "reattach"),
        ),
    ),
    Tampering(
        "envoy is taken off the agents' network",
        _disconnect(ENVOY, "net"),
        (
            Sign(ENVOY, "state", "networks.{project}-net", "reattach"),
            Sign(ENVOY, "live", "network", "reattach"),
        ),
    ),
    Tampering(
        "coredns is taken off the agents' network",
        _disconnect(COREDNS, "net"),
        (
            Sign(COREDNS, "state", "networks.{project}-net", "reattach"),
            Sign(COREDNS, "state", "service_address", "reattach"),
            Sign(COREDNS, "live", "network", "reattach"),
        ),
    ),
    Tampering(
        "coredns is given a way out",
        lambda hand: hand.docker.connect_container_to_network(
            hand.name(COREDNS), f"{hand.firewall.project}-egress"
        ),
        (
            Sign(COREDNS, "state", "networks.{project}-egress", "replace"),
            Sign(COREDNS, "live", "network", "replace"),
            Sign(COREDNS, "live", "engine_files", "replace"),
        ),
    ),
    Tampering(
        "coredns gives the service address up",
        lambda hand: hand.fwctl(COREDNS, "release"),
        (Sign(COREDNS, "state", "service_address", "claim"),),
    ),
    Tampering(
        "an agent takes the service address as well",
        _take_the_service_address,
        (Sign(COREDNS, "state", "address.{service}", "detach"),),
    ),
    Tampering(
        "an agent takes the address of an envoy that was taken off the network",
        _take_an_envoy_s_address,
        (
            Sign(ENVOY, "state", "networks.{project}-net", "reattach"),
            Sign(ENVOY, "live", "network", "reattach"),
            Sign(COREDNS, "state", "address.{envoy}", "detach"),
        ),
    ),
)


# --- networks -------------------------------------------------------------------------------------------------


def _network(end: str, what: str, change: Callable[[Body], None], *fields: str) -> Tampering:
    """Return the way of making a network anew. Who was on it is taken off for that, and left off."""
    name = f"{{project}}-{end}"
    owner = COREDNS if end == "net" else ENVOY
    off = {
        "net": (
            Sign(ENVOY, "state", f"networks.{name}", "reattach"),
            Sign(ENVOY, "live", "network", "reattach"),
            Sign(COREDNS, "state", f"networks.{name}", "reattach"),
            Sign(COREDNS, "state", "service_address", "reattach"),
            Sign(COREDNS, "live", "network", "reattach"),
        ),
        "egress": (
            Sign(ENVOY, "state", f"networks.{name}", "reattach"),
            Sign(ENVOY, "live", "network", "reattach"),
        ),
    }
    return Tampering(
        f"the {'agent' if end == 'net' else 'egress'} network is made anew {what}",
        lambda hand: hand.remake_network(end, change),
        (*(Sign(owner, "shape", f"networks.{name}.{field}", "recreate-networks") for field in fields), *off[end]),
    )


def _with_ipv6(body: Body) -> None:
    body["EnableIPv6"] = True
    body["Options"] = {key: text for key, text in body["Options"].items() if not key.endswith("enable_ipv6")}
    body["IPAM"] = {**body["IPAM"], "Config": [*body["IPAM"]["Config"], {"Subnet": "fd00:c1a3::/64"}]}


def _with_an_address(body: Body) -> None:
    body["Options"] = {**body["Options"], "com.docker.network.bridge.inhibit_ipv4": "false"}


def _without_ip_range(body: Body) -> None:
    (pool,) = body["IPAM"]["Config"]
    body["IPAM"] = {**body["IPAM"], "Config": [{key: text for key, text in pool.items() if key != "IPRange"}]}


def _other_gateway(body: Body) -> None:
    (pool,) = body["IPAM"]["Config"]
    first, _, _ = pool["Gateway"].rpartition(".")
    body["IPAM"] = {**body["IPAM"], "Config": [{**pool, "Gateway": f"{first}.254"}]}


_HOLDING_ADDRESSES = ((ENVOY, LISTENERS, "listeners"), (COREDNS, POLICY, "policy"))
"""The hot files that hold addresses, and what is live of each."""


def _other_subnet(body: Body) -> None:
    (pool,) = body["IPAM"]["Config"]
    subnet = IPv4Network("10.77.0.0/20")
    config = {**pool, "Subnet": str(subnet), "Gateway": str(subnet[1]), "IPRange": str(lower_half(subnet))}
    body["IPAM"] = {**body["IPAM"], "Config": [config]}


NETWORKS = (
    _network("net", "with a way out", _config(Internal=False), "internal"),
    _network("net", "with an address of the host on it", _with_an_address, "options"),
    _network("net", "with IPv6", _with_ipv6, "ipv6", "options"),
    _network("net", "so that agents get addresses of ours", _without_ip_range, "ip_range"),
    _network("egress", "with another gateway", _other_gateway, "gateway"),
    _network("egress", "without a way out", _config(Internal=True), "internal"),
    Tampering(
        "the agent network is made anew with another subnet, and the settings ask for none",
        lambda hand: hand.remake_network("net", _other_subnet),
        (
            *(
                sign
                for sibling in (ENVOY, COREDNS)
                for sign in (
                    Sign(sibling, "state", "networks.{project}-net", "replace"),
                    Sign(sibling, "boot", "boot/sibling.json", "replace", SETTINGS),
                    Sign(sibling, "live", "network", "replace"),
                )
            ),
            Sign(COREDNS, "state", "service_address", "claim"),
            Sign(COREDNS, "hot", EYE, "commit", SETTINGS),
            *(
                Sign(sibling, layer, field, "commit", SETTINGS)
                for sibling, path, resource in _HOLDING_ADDRESSES
                for layer, field in (("hot", path), ("live", resource))
            ),
        ),
    ),
)


# --- files ----------------------------------------------------------------------------------------------------


def _write(sibling: str, path: str, content: bytes, action: str, what: str = "changed") -> Tampering:
    layer = "hot" if action == "commit" else "boot"
    return Tampering(
        f"`{path}` of {sibling} is {what}",
        lambda hand: hand.write(sibling, path, content),
        (Sign(sibling, layer, path, action),),
    )


def _policy(change: Callable[[Any, Hand], None]) -> Callable[[Hand], None]:
    """Return the way of changing the list of names in place: CoreDNS takes any list that it can read."""

    def make(hand: Hand) -> None:
        document = json.loads(hand.read(COREDNS)[POLICY])
        change(document, hand)
        hand.write(COREDNS, POLICY, json.dumps(document).encode())

    return make


def _other_slot(document: Any, hand: Hand) -> None:  # noqa: ANN401 - JSON
    first, _, last = hand.address(ENVOY).rpartition(".")
    document["addresses"]["envoy"] = f"{first}.{21 - int(last)}"


def _allow_a_name(hand: Hand) -> None:
    _policy(lambda document, _: document["names"].update({"evil.test": {"at": "envoy"}}))(hand)


_LOADED = (Sign(COREDNS, "hot", POLICY, "commit"), Sign(COREDNS, "live", "policy", "commit"))

FILES = (
    _write(ENVOY, "boot/bootstrap.yaml", b"admin: {}\n", "replace"),
    _write(COREDNS, "boot/Corefile", b". {\n    errors\n}\n", "replace"),
    _write(COREDNS, "boot/extra", b"x", "replace", "added"),
    _write(COREDNS, "extra", b"x", "replace", "added"),
    _write(COREDNS, "state/extra", b"x", "replace", "added"),
    Tampering(
        "`bin/fwctl` of coredns is replaced by another program",
        lambda hand: hand.write(COREDNS, "bin/fwctl", b"#!/bin/sh\n"),
        (Sign(COREDNS, "boot", "bin/fwctl", "replace"), Sign(COREDNS, "live", "answer", "replace")),
    ),
    Tampering(
        "`boot/Corefile` is deleted",
        lambda hand: hand.remove(COREDNS, "boot/Corefile"),
        (Sign(COREDNS, "boot", "boot/Corefile", "replace"),),
    ),
    Tampering(
        "`boot/Corefile` is replaced by a link",
        lambda hand: hand.link(COREDNS, "boot/Corefile", "/etc/hosts"),
        (Sign(COREDNS, "boot", "boot/Corefile", "replace"),),
    ),
    Tampering(
        "`boot/Corefile` is given another mode",
        lambda hand: hand.alter(COREDNS, "boot/Corefile", mode=0o666),
        (Sign(COREDNS, "boot", "boot/Corefile", "replace"),),
    ),
    Tampering(
        f"`{LISTENERS}` is given another owner",
        lambda hand: hand.alter(ENVOY, LISTENERS, owner=(65532, 0)),
        (Sign(ENVOY, "hot", LISTENERS, "commit"),),
    ),
    Tampering(
        f"`{COMMITTED}` of coredns is given another mode",
        lambda hand: hand.alter(COREDNS, COMMITTED, mode=0o666),
        (Sign(COREDNS, "hot", COMMITTED, "commit"),),
    ),
    Tampering(
        "the folder `hot/policy` of coredns is given another mode",
        lambda hand: hand.open_folder(COREDNS, "hot/policy", mode=0o777),
        (Sign(COREDNS, "boot", f"{VOLUME}/hot/policy", "replace"),),
    ),
    Tampering(
        "the folder `hot` of envoy is given another owner",
        lambda hand: hand.open_folder(ENVOY, "hot", owner=65532),
        (Sign(ENVOY, "boot", f"{VOLUME}/hot", "replace"),),
    ),
    _write(COREDNS, ATTEMPT, b"[]", "replace", "one that can't be read"),
    Tampering(
        f"`{COMMITTED}` of coredns is one that can't be read",
        lambda hand: hand.write(COREDNS, COMMITTED, b'{"version": 1}'),
        (Sign(COREDNS, "hot", COMMITTED, "commit"),),
    ),
    _write(ENVOY, LISTENERS, b'{"resources": []}', "commit"),
    _write(ENVOY, "hot/rds/extra.json", b"{}", "commit", "added"),
    Tampering(
        "a commit is left half done in coredns",
        lambda hand: hand.write(COREDNS, "stage/commit.json", b"{}"),
        (Sign(COREDNS, "hot", "stage", "commit", UPGRADE),),
    ),
    Tampering(
        f"`{LISTENERS}` is deleted",
        lambda hand: hand.remove(ENVOY, LISTENERS),
        (Sign(ENVOY, "hot", LISTENERS, "commit"),),
    ),
    Tampering(
        f"`{POLICY}` is replaced by a link",
        lambda hand: hand.link(COREDNS, POLICY, "/etc/hosts"),
        (Sign(COREDNS, "hot", POLICY, "commit"),),
    ),
    Tampering("the list of names is given one that no rule allows", _allow_a_name, _LOADED),
    Tampering("the list of names leads to an address where no Envoy is", _policy(_other_slot), _LOADED),
    Tampering(
        "the list of names is replaced by one that can't be read",
        lambda hand: hand.write(COREDNS, POLICY, b"this is no list\n"),
        (Sign(COREDNS, "hot", POLICY, "commit"),),
    ),
    _write(COREDNS, f"good/{POLICY}", b"{}", "commit"),
    _write(COREDNS, "state/committed.json", b"{}", "commit"),
)


# --- inside, while it runs --------------------------------------------------------------------------------------


def _start_a_process(hand: Hand) -> None:
    program = peer_program(hand.docker.version()["Arch"]).read_bytes()
    hand.write(COREDNS, "bin/fwctl", program)  # the one path that is executable
    identity = hand.docker.exec_create(hand.name(COREDNS), [f"{VOLUME}/bin/fwctl", "wait"])["Id"]
    hand.docker.exec_start(identity, detach=True)
    release = installed_release()
    hand.write(COREDNS, "bin/fwctl", release.binary("fwctl", hand.docker.version()["Arch"]).read_bytes())


def _lead_around_the_guard(hand: Hand) -> None:
    """Have the helper itself add a rule that no file asks for any more afterwards."""
    before = hand.read(ENVOY)["boot/sibling.json"]
    sibling = json.loads(before)
    sibling["tables"].append({**sibling["tables"][1], "from": sibling["tables"][0]["from"], "table": 103})
    hand.write(ENVOY, "boot/sibling.json", json.dumps(sibling).encode())
    hand.fwctl(ENVOY, "serve", "--", "/nonexistent")
    hand.write(ENVOY, "boot/sibling.json", before)


def _have_loaded(path: str, before: bytes, after: bytes) -> Callable[[Hand], None]:
    """Return the way of having Envoy load a changed file, with the right one put back where it does not look."""

    def make(hand: Hand) -> None:
        right = hand.read(ENVOY)[path]
        changed = right.replace(before, after)
        if changed == right:
            raise ValueError(f"{path} has nothing to change")
        hand.write(ENVOY, "stage/changed", changed)
        hand.move(ENVOY, "stage/changed", path)
        hand.write(ENVOY, path, right)

    return make


INSIDE = (
    Tampering(
        "a route around the guard is added in envoy",
        _lead_around_the_guard,
        (Sign(ENVOY, "live", "network", "replace"),),
    ),
    Tampering(
        "another process is started in coredns",
        _start_a_process,
        (Sign(COREDNS, "live", "processes", "replace"),),
    ),
    Tampering(
        "Envoy has loaded a further server name, and the right file lies there again",
        _have_loaded(LISTENERS, b'"domains":["a.test"]', b'"domains":["a.test","evil.test"]'),
        (Sign(ENVOY, "live", "listeners", "commit"),),
    ),
    Tampering(
        "Envoy has loaded a further host, and the right file lies there again",
        _have_loaded(ROUTES, b'"domains":["h.test"]', b'"domains":["evil.test","h.test"]'),
        (Sign(ENVOY, "live", "routes", "commit"),),
    ),
)

# --- the network inside ---------------------------------------------------------------------------------------


def _inside(sibling: str, what: str, script: str) -> Tampering:
    """Return the way of changing a sibling's network from the engine's machine, while it runs."""
    return Tampering(
        what, lambda hand: hand.inside(sibling, script), (Sign(sibling, "live", "network", "replace"),)
    )


_WAY_OUT = "set -- $(ip route show default); gateway=$3 interface=$5; "
_DIVERT = "OUTPUT -p tcp --dport 443 -j DNAT --to-destination 203.0.113.66"
_DROP = "INPUT -p tcp --dport 443 -j DROP"


def _given(sibling: str, what: str, file: str, line: str) -> Tampering:
    """Return the way of changing a file of the engine's that a container sees."""
    return Tampering(
        what,
        lambda hand: hand.append(sibling, file, line),
        (Sign(sibling, "live", "engine_files", "replace"),),
    )


GIVEN = (
    _given(ENVOY, "envoy's hosts file gets a name", "HostsPath", "192.0.2.1 a.test"),
    _given(ENVOY, "envoy's resolver file gets a search domain", "ResolvConfPath", "search example.com"),
    _given(COREDNS, "coredns' host name file gets a line", "HostnamePath", "example.com"),
)

INSIDE_NETWORK = (
    _inside(ENVOY, "forwarding is switched on in envoy's network", "echo 1 >/proc/sys/net/ipv4/ip_forward"),
    _inside(
        COREDNS,
        "coredns' interface is told to answer for no address",
        "echo 8 >/proc/sys/net/ipv4/conf/eth0/arp_ignore",
    ),
    _inside(ENVOY, "a packet filter in envoy's network drops what agents send", f"iptables-nft -I {_DROP}"),
    _inside(
        ENVOY,
        "a packet filter of the older kind in envoy's network drops what agents send",
        f"iptables-legacy -I {_DROP}",
    ),
    _inside(ENVOY, "a packet filter in envoy's network diverts the way out", f"iptables-nft -t nat -I {_DIVERT}"),
    _inside(
        ENVOY,
        "a packet filter of the older kind in envoy's network diverts the way out",
        f"iptables-legacy -t nat -I {_DIVERT}",
    ),
    Tampering(
        "a packet filter in coredns' network drops by default",
        lambda hand: hand.inside(COREDNS, "iptables-nft -P INPUT DROP"),
        (Sign(COREDNS, "live", "network", "replace"), Sign(COREDNS, "live", "answer", "replace")),
    ),
    _inside(
        ENVOY,
        "a packet filter leads envoy to another resolver than the engine's",
        "for filter in nft legacy; do iptables-$filter -t nat -I OUTPUT -d 127.0.0.11 -p udp --dport 53 "
        "-j DNAT --to-destination 203.0.113.66:53; done",
    ),
    _inside(
        ENVOY,
        "the engine's packet filter for its resolver is taken away in envoy's network",
        "for filter in nft legacy; do iptables-$filter -t nat -F; done",
    ),
    _inside(ENVOY, "the main table in envoy's network loses its default route", "ip route del default"),
    _inside(
        ENVOY,
        "the main table in envoy's network gets a further route",
        _WAY_OUT + "ip route add 198.51.100.0/24 via $gateway",
    ),
    _inside(
        COREDNS,
        "a rule and a table that nobody asked for are added in coredns' network",
        "ip rule add priority 32000 lookup 7; ip route add blackhole 10.0.0.0/8 table 7",
    ),
    _inside(
        ENVOY,
        "another hardware address is written down for envoy's gateway",
        _WAY_OUT + "ip neighbour replace $gateway lladdr 02:00:00:00:00:66 nud permanent dev $interface",
    ),
    _inside(
        ENVOY,
        "envoy's interface to the world is throttled",
        _WAY_OUT + "tc qdisc add dev $interface root tbf rate 8kbit burst 1600 latency 1s",
    ),
    _inside(
        COREDNS,
        "an address that nobody asked for is added in coredns' network",
        "ip address add 10.66.0.1/32 dev eth0",
    ),
    _inside(
        ENVOY,
        "an interface that nobody asked for is added in envoy's network",
        "ip link add extra type veth peer name further; ip link set extra up",
    ),
    _inside(
        ENVOY,
        "an IPsec policy in envoy's network blocks what agents send",
        "ip xfrm policy add dir in src 10.66.0.0/16 action block",
    ),
)

SEEN_BY_AGENTS = (
    Tampering(
        "envoy is told to stop listening",
        Hand.deafen,
        (Sign(ENVOY, "live", "agents_see", "replace"),),
    ),
)

TAMPERINGS: Mapping[str, Sequence[Tampering]] = {
    "States": STATES,
    "Containers": CONTAINERS,
    "Images": IMAGES,
    "Networks": NETWORKS,
    "Files": FILES,
    "Inside, while it runs": INSIDE,
    "The network inside": INSIDE_NETWORK,
    "Files that the engine gives": GIVEN,
    "Seen by agents alone": SEEN_BY_AGENTS,
}
