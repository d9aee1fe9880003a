"""A user's main actions on the oldest and the newest engine, with one stack that each test leaves current."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest
from docker import APIClient, errors

from clawker_fw.engine.shapes import hardware_address
from clawker_fw.engine.translate import container_view
from devkit import ignored
from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.peers import Peer, Peers
from devkit.tampering.inside_network import REDIRECT_REMOVED
from devkit.tools import run_inside
from devkit.waiting import until
from devkit.world import NAMESERVER, WORLD, World, world_around

KINDS = ("20.10.24", "29-nftables")
"""The oldest and the newest engine, which also differ in packet filter and image store."""

RULES: tuple[dict[str, Any], ...] = (
    {"dst": "pub.test"},
    {"dst": "a.test", "allow_private": True},
    {"dst": "h.test", "proto": "http", "allow_private": True},
    {"dst": "h.test", "proto": "http", "port": 8080, "allow_private": True},
)

ALLOWED = ("https://pub.test/", "https://a.test/", "http://h.test/", "http://h.test:8080/")

NO_DUPLICATES_SINCE = 25
"""The first engine that never creates two networks with one name."""

BACK_SECONDS = 25
"""Seconds until agents are served after a restart. A wrong neighbour entry would take half a minute."""


@dataclass(frozen=True)
class Site:
    """A stack on its own engine, with an origin, an agent, and a container outside the firewall."""

    engine: PrivateEngine
    docker: APIClient
    peers: Peers
    firewall: Firewall
    world: World
    origin: Peer
    agent: Peer
    neighbour: Peer

    def serves(self) -> bool:
        """Whether every allowed request passes."""
        return all(self.agent.get(url, "--timeout", "2s").ok for url in ALLOWED)

    def idle(self) -> bool:
        """Whether `run` has nothing to do."""
        return self.firewall.run().json["changed"] is False

    def made(self) -> dict[str, set[str]]:
        """Everything on the engine that could be left behind, by kind."""
        return {
            "containers": {each["Id"] for each in self.docker.containers(all=True)},
            "networks": {each["Id"] for each in self.docker.networks()},
            "volumes": {each["Name"] for each in self.docker.volumes()["Volumes"] or ()},
            "images": {each["Id"] for each in self.docker.images(all=True)},
        }


class Recorder(dict[str, Any]):
    """A JSON object that records which fields are read."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - JSON
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - JSON
        self.read.add(name)
        return super().get(name, default)


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest,
    needs_engine: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The environment on one kind of engine, with a newly created stack."""
    kind: str = request.param
    needs_engine(kind)
    with ExitStack() as stack:
        engine = stack.enter_context(private_engine(kind, dns=[NAMESERVER]))
        docker = stack.enter_context(closing(client(engine.host)))
        world = stack.enter_context(
            world_around(engine, tmp_path_factory.mktemp("said"), docker.version()["Arch"])
        )
        world.resolve({"pub.test": [WORLD], "denied.test": [WORLD]})
        firewall = Firewall(engine.host, "clawker", tmp_path_factory.mktemp("site"))
        firewall.write(*RULES)
        firewall.run()

        peers = Peers(docker)
        docker.create_network("elsewhere")
        ports = ("--http", "80,8080", "--https", "443")
        origin = firewall.origin(peers, ["a.test", "b.test", "h.test"], "--name", "origin", *ports, "--tell")
        yield Site(
            engine=engine,
            docker=docker,
            peers=peers,
            firewall=firewall,
            world=world,
            origin=origin,
            agent=firewall.agent(peers),
            neighbour=peers.origin("elsewhere", (), "--http", "80"),
        )


def test_up_from_nothing_is_current(site: Site) -> None:
    """After the first run, `drift` finds nothing, and a second run changes nothing."""
    found = site.firewall.drift().expect()
    assert found.json["verdict"] == "current"
    assert found.findings == set()
    before = site.made()
    assert site.idle()
    assert site.made() == before


def test_every_field_of_a_container_is_compared_or_ignored_for_a_reason(site: Site) -> None:
    """Each field that the engine reports is compared, or listed with a reason."""
    for sibling in ("envoy", "coredns"):
        raw = site.docker.inspect_container(site.firewall.container(sibling))
        config, host = Recorder(raw["Config"]), Recorder(raw["HostConfig"])
        container_view({**raw, "Config": config, "HostConfig": host})
        for recorder, left_out in ((config, ignored.CONFIG), (host, ignored.HOST_CONFIG)):
            assert set(recorder) - recorder.read == set(recorder) & set(left_out)


def test_what_users_can_try_themselves(site: Site) -> None:
    """The quick attacks hold, nothing is left of them, and `doctor` finds no problem."""
    before = site.made()
    outcome = site.firewall.call("conformance", "--format", "json")
    assert [each for each in outcome.json["attempts"] if not each["held"]] == []
    outcome.expect()
    assert site.made() == before
    checks = site.firewall.call("doctor", "--format", "json").json["checks"]
    assert [each for each in checks if each["health"] == "failed"] == []


def test_a_container_that_is_called_like_a_host(site: Site) -> None:
    """It is open, Envoy sends it nothing, and `agent run` refuses it; without it, the host is served again.

    One has its name from Docker, the other an alias on the network.
    """
    attached = site.firewall.status()["agent"]
    # asks CoreDNS directly: the engine's own resolver would return the container's address
    way = ("--dns-server", f"{attached['dns']}:53", "--timeout", "4s")
    assert site.agent.get("https://pub.test/", *way).ok
    there: dict[str, Any] = {"network": attached["network"], "dns": attached["dns"], "dropped": ("NET_RAW",)}
    ports = ("origin", "--https", "443", "--http", "80")
    bearers = [
        site.peers.start(*ports, **there, **how) for how in ({"name": "pub.test"}, {"aliases": ("h.test",)})
    ]
    try:
        judged = {each["id"]: each for each in site.firewall.status()["agents"]}
        for bearer in bearers:
            found = judged[bearer.container]
            assert (found["state"], [each["code"] for each in found["reasons"]]) == ("open", ["name"])
        for url in ("https://pub.test/", "http://h.test/"):
            site.agent.get(url, *way)
        assert site.agent.get("https://a.test/", *way).ok
        assert not any(each["event"] == "request" for bearer in bearers for each in bearer.said())
        again = site.firewall.call("agent", "run", "--hostname", "pub.test", site.peers.image, "/peer", "wait")
        assert "it is called pub.test" in again.expect(6).err
    finally:
        for bearer in bearers:
            bearer.remove()
    until(lambda: all(site.agent.get(url, *way).ok for url in ("https://pub.test/", "http://h.test/")))


def test_no_other_way_out(site: Site) -> None:
    """An agent has no IPv6 and can't connect to addresses outside its network; another container can."""
    elsewhere, egress, agents = (
        ip_network(site.docker.inspect_network(name)["IPAM"]["Config"][0]["Subnet"])
        for name in ("elsewhere", "clawker-egress", "clawker-net")
    )
    outside = {f"{address}:80" for address in (WORLD, elsewhere[1], egress[1])}
    for target in outside:
        assert site.neighbour.ask("probe-tcp", target).ok, target
    beside = {f"{site.neighbour.address('elsewhere')}:80", f"{site.origin.address('clawker-egress')}:80"}
    for target in beside:
        subprocess.run(site.world.argv("probe-tcp", target), check=True, capture_output=True)
    for target in (*outside, *beside, f"{agents[1]}:80"):  # nobody has the last one: agents have no gateway
        assert not site.agent.ask("probe-tcp", target, "--timeout", "500ms").ok, target
    command = ["nsenter", f"--net={site.agent.process()}/ns/net", "ip", "-json", "address"]
    links = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found = [each for link in links for each in link["addr_info"] if each["scope"] == "global"]
    assert [ip_network(f"{each['local']}/{each['prefixlen']}", strict=False) for each in found] == [agents]


def _hardware(site: Site, container: str) -> dict[str, str]:
    networks = site.docker.inspect_container(container)["NetworkSettings"]["Networks"]
    return {each["IPAddress"]: each["MacAddress"] for each in networks.values()}


def test_restarts_need_nobody(site: Site) -> None:
    """Agents are served again without drift; MAC addresses stay, because agents have them cached.

    Without the engine's redirect of DNS to its resolver, a stack has drifted, and a restart restores it.
    """
    envoy = site.firewall.container("envoy")
    run_inside(site.docker, envoy, REDIRECT_REMOVED)
    assert site.firewall.drift().findings == {("envoy", "live", "network", "tamper", "replace")}
    for container in (envoy, site.firewall.container("coredns")):
        before = _hardware(site, container)
        site.docker.restart(container, timeout=5)
        assert _hardware(site, container) == before == {address: hardware_address(address) for address in before}
    until(site.serves, BACK_SECONDS)
    until(site.firewall.current, BACK_SECONDS)
    assert site.agent.get("https://denied.test/").kind == "dns-nxdomain"


def test_two_networks_of_one_name(site: Site) -> None:
    """Engines before 25 create a second network, and `run` refuses with both ids; later engines refuse it."""
    name = "clawker-net"
    if int(site.docker.version()["Version"].partition(".")[0]) >= NO_DUPLICATES_SINCE:
        with pytest.raises(errors.APIError):
            site.docker.create_network(name, check_duplicate=False)
        return
    made = site.docker.create_network(name, check_duplicate=False)["Id"]
    both = {each["Id"] for each in site.docker.networks(names=[f"^{name}$"])}
    assert len(both) == 2
    for verb in ("drift", "run", "down"):
        outcome = site.firewall.call(verb).expect(6)
        assert "error[network-ambiguous]" in outcome.err
        assert all(identity in outcome.err for identity in both)
    site.docker.remove_network(made)
    site.firewall.drift().expect()
