"""New networks avoid routed destinations, and hosts that receive agents' broadcasts cause a warning."""

import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from clawker_fw.engine import host_network
from clawker_fw.errors import SettingsError
from clawker_fw.model.stacks import Role
from clawker_fw.reconcile import pipeline
from clawker_fw.stack import topology
from devkit import stacks
from devkit.memory.engine import MemoryEngine

DEFAULT = str(IPv4Address(0))
HEADER = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def line(destination: str, mask: str, flags: str = "0001") -> str:
    """Return a line in the kernel's form, with addresses in the machine's byte order."""

    def number(address: str) -> str:
        return f"{int.from_bytes(bytes(map(int, address.split('.'))), sys.byteorder):08X}"

    return f"eth0\t{number(destination)}\t00000000\t{flags}\t0\t0\t0\t{number(mask)}\t0\t0\t0\n"


def test_the_kernel_s_table_is_read(tmp_path: Path) -> None:
    """Each destination is listed once, without default and inactive routes."""
    table = tmp_path / "route"
    table.write_text(
        HEADER
        + line(DEFAULT, DEFAULT, "0003")
        + line("192.0.2.0", "255.255.255.0")
        + line("10.8.0.1", "255.255.255.255", "0005")
        + line("192.0.2.0", "255.255.255.0")
        + line("198.51.100.0", "255.255.255.0", "0000")
    )
    assert host_network.routes(table) == (IPv4Network("10.8.0.1/32"), IPv4Network("192.0.2.0/24"))


@pytest.mark.parametrize("content", [None, b"\xff\xfe", HEADER.encode()])
def test_a_machine_that_says_nothing(content: bytes | None, tmp_path: Path) -> None:
    """Without the kernel's table, no routes are known."""
    table = tmp_path / "route"
    if content is not None:
        table.write_bytes(content)
    assert host_network.routes(table) == ()


def agents(*routed: str, subnet: str | None = None) -> str:
    """Return the agent subnet of a stack on a machine with these routes."""
    engine = MemoryEngine(routes=tuple(map(IPv4Network, routed)))
    network = {"subnet": subnet} if subnet else {}
    wanted = stacks.blueprint(engine.facts(), "a.test", network=network)
    seen = stacks.converged(engine, wanted)
    return str(seen.observed.networks[Role.AGENTS].subnets[0])


@pytest.mark.parametrize(
    ("routed", "chosen", "expected"),
    [
        ((), None, "10.213.0.0/23"),
        (("10.213.0.0/24",), None, "10.213.2.0/23"),
        (("10.0.0.0/8",), None, "172.24.0.0/23"),
        (("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), None, "10.213.0.0/23"),
        (("10.0.0.0/8",), "10.99.0.0/20", "10.99.0.0/20"),  # its own route is more specific
    ],
)
def test_a_free_subnet_takes_no_route_away(routed: tuple[str, ...], chosen: str | None, expected: str) -> None:
    """The first subnet without a route is used, or the first one if all have routes."""
    assert agents(*routed, subnet=chosen) == expected


@pytest.mark.parametrize("role", Role)
def test_groups_don_t_compete_for_subnets(role: Role) -> None:
    """Of stacks that are created at the same time, most choose different subnets; a taken one is left out."""
    chosen = {topology.free_subnet(role, (), (), stack=f"team-{group}") for group in range(10)}
    assert len(chosen) > 7
    subnet = topology.free_subnet(role, (), (), stack="team-web")
    assert not topology.free_subnet(role, [subnet], (), stack="team-web").overlaps(subnet)


@pytest.mark.parametrize(("names", "prefix"), [(31, 23), (32, 22), (2000, 20)])
def test_a_network_has_room_for_twice_the_names(names: int, prefix: int) -> None:
    """The smallest network with room for twice the virtual addresses is chosen, up to a /20."""
    assert topology.free_subnet(Role.AGENTS, (), (), names).prefixlen == prefix


@pytest.mark.parametrize("route", ["10.99.0.0/20", "10.99.4.0/24", "10.99.4.1/32"])
def test_a_subnet_of_which_a_part_is_routed_is_refused(route: str) -> None:
    """A configured subnet with a more specific route is refused, because that route would divert traffic."""
    with pytest.raises(SettingsError) as caught:
        agents(route, subnet="10.99.0.0/20")
    assert (caught.value.code, tuple(caught.value.context)) == ("subnet-routed", (route,))


def test_a_stack_keeps_the_subnet_it_has() -> None:
    """A stack keeps its subnet, even if a more specific route appears later."""
    engine = MemoryEngine(routes=(IPv4Network("10.99.0.0/20"), IPv4Network("10.99.4.0/24")))
    quiet = MemoryEngine.facts(engine)
    wanted = stacks.blueprint(quiet, "a.test", network={"subnet": "10.99.0.0/20"})
    with pytest.raises(SettingsError):
        pipeline.compare(engine, wanted)
    vars(engine)["_facts"] = MemoryEngine().facts()
    stacks.converged(engine, wanted)
    vars(engine)["_facts"] = quiet
    assert stacks.found(engine, wanted) == set()


def test_sources_are_checked_as_the_kernel_does(tmp_path: Path) -> None:
    """The higher `rp_filter` value counts; for an engine in a virtual machine, it is unknown."""
    for of_all, own, checked in ((0, 0, False), (1, 0, True), (0, 2, True)):
        for place, value in (("all", of_all), ("br-0", own)):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / "rp_filter").write_text(f"{value}\n")
        assert host_network.checks_sources("br-0", tmp_path) is checked
    assert host_network.checks_sources("br-1", tmp_path) is None


def test_whether_bridged_connections_are_tracked(tmp_path: Path) -> None:
    """Without br_netfilter the setting does not exist, and nothing is tracked."""
    setting = tmp_path / "bridge-nf-call-iptables"
    assert host_network.tracks_bridged(setting) is False
    for content in ("0", "1"):
        setting.write_text(f"{content}\n")
        assert host_network.tracks_bridged(setting) is (content == "1")
