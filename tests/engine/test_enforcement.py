"""What agents can and can't reach, on a real engine with real programs.

Refusals are judged by the logs of origins: `devkit.witness`.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devkit.engines import available, private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.peers import Peer, Peers
from devkit.programs import machine
from devkit.waiting import until
from devkit.witness import LoggingOrigin, Witnesses
from devkit.world import NAMESERVER, WORLD, World, world_around

PRIVATE = {"local": "169.254.169.254", "private": "10.9.9.9", "shared": "100.64.0.1", "gateway": "10.214.0.1"}
"""Further addresses of the origin, which no agent may reach."""

ZONE = {
    "pub.test": [WORLD],
    "*.wild.test": [WORLD],
    "wild.test": [WORLD],
    "loop.test": ["127.0.0.1"],
    "local.test": ["169.254.169.254"],
    "mixed.test": ["10.9.9.9", WORLD],
    "private.test": ["10.9.9.9"],
    "shared.test": ["100.64.0.1"],
    "denied.test": [WORLD],
}

RULES: list[str | dict[str, Any]] = [
    "pub.test",
    ".wild.test",
    {"dst": "pub.test", "port": 8443},
    {"dst": "pub.test", "proto": "http"},
    {"dst": "pub.test", "proto": "http", "port": 8080},
    {"dst": "web.test", "proto": "http"},
    *({"dst": f"{name}.test", "proto": proto} for name in ("loop", "local", "mixed", "private", "shared")
      for proto in ("http", "https")),
    {"dst": "agent.test", "proto": "http"},
    {"dst": "self.test", "proto": "http"},
    {"dst": "gateway.test", "proto": "http"},
    {"dst": "agent2.test", "proto": "http", "allow_private": True},
    {"dst": "self2.test", "proto": "http", "allow_private": True},
    {"dst": "loop2.test", "proto": "http", "allow_private": True},
    {"dst": "private2.test", "proto": "http", "allow_private": True},
]  # fmt: skip


@pytest.fixture(scope="module")
def world(
    require_engine: bool,  # noqa: FBT001 - a fixture
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """The simulated internet, for all tests here."""
    if (reason := available()) and not require_engine:
        pytest.skip(f"ENFORCEMENT IS NOT TESTED: {reason}")
    with (
        private_engine(dns=[NAMESERVER]) as engine,
        world_around(engine, tmp_path_factory.mktemp("said"), machine()) as made,
    ):
        made.add(*(address for name, address in PRIVATE.items() if name != "gateway"))
        yield made


@pytest.fixture(scope="module")
def firewall(world: World, tmp_path_factory: pytest.TempPathFactory) -> Firewall:
    """A stack in that internet."""
    made = Firewall(world.engine.host, "clawker", tmp_path_factory.mktemp("world"))
    made.write(*RULES)
    made.run()
    return made


@pytest.fixture(scope="module")
def peers(world: World, firewall: Firewall) -> Iterator[Peers]:
    """Origins and agents in that internet."""
    del firewall
    sdk = client(world.engine.host)
    yield Peers(sdk)
    sdk.close()


@pytest.fixture(scope="module")
def agent(firewall: Firewall, peers: Peers, world: World) -> Peer:
    """An agent that is also a server. DNS has names for its address and for Envoy's."""
    made = firewall.agent(peers, "origin", "--name", "agent", "--http", "80", "--https", "443", "--tell")
    status = firewall.status()
    own = {
        "agent.test": [made.address(status["agent"]["network"])],
        "self.test": [status["siblings"][0]["address"]],
        "gateway.test": [PRIVATE["gateway"]],
    }
    doubles = {"agent2.test": own["agent.test"], "self2.test": own["self.test"]}
    world.resolve(ZONE | own | doubles | {"loop2.test": ["127.0.0.1"], "private2.test": ["10.9.9.9"]})
    return made


@pytest.fixture(scope="module")
def neighbour(firewall: Firewall, peers: Peers) -> Peer:
    """A container on the egress network without any restriction by the firewall."""
    del firewall
    return peers.start("wait", network="clawker-egress")


@pytest.fixture(scope="module")
def process(firewall: Firewall, peers: Peers) -> int:
    """The pid of Envoy's process on the engine."""
    return process_of(firewall, "envoy", peers)


@pytest.fixture(scope="module")
def loopback(process: int, world: World) -> LoggingOrigin:
    """An origin on Envoy's own loopback."""
    options = ("--address", "127.0.0.1", "--http", "80", "--https", "443", "--tell")
    return world.serve("origin", "--name", "loopback", *options, process=process)


@pytest.fixture(scope="module")
def witnesses(world: World, loopback: LoggingOrigin, agent: Peer) -> Witnesses:
    """Everything that could be reached: the internet, Envoy's loopback, and an agent."""
    return Witnesses([world.origin, loopback, agent])


def process_of(firewall: Firewall, sibling: str, peers: Peers) -> int:
    """Return the pid of a sibling's first process on the engine."""
    return int(peers.client.inspect_container(firewall.container(sibling))["State"]["Pid"])


@pytest.fixture(scope="module")
def envoy(firewall: Firewall) -> str:
    """Envoy's address, for agents that use it directly."""
    return str(firewall.status()["siblings"][0]["address"])


@pytest.mark.parametrize(
    "url",
    [
        "https://pub.test/",
        "https://pub.test:8443/",
        "http://pub.test/",
        "http://pub.test:8080/",
        "https://wild.test/",
        "https://a.wild.test/",
        "https://d.c.b.a.wild.test/",
        "https://PUB.test/",
    ],
)
def test_what_a_rule_allows_gets_through(url: str, agent: Peer) -> None:
    """Exact names and subtrees, both protocols, default and other ports."""
    answer = agent.get(url)
    assert answer.ok, answer
    seen = json.loads(answer.last["body"])
    assert (seen["name"], seen["address"]) == ("world", WORLD)
    assert seen["remote_address"].startswith("10.214.0."), "not through Envoy"


def test_the_origin_sees_the_host_as_the_agent_wrote_it(agent: Peer) -> None:
    """The request has the Host header with its port, and no header of a proxy."""
    for url, host in (("http://pub.test/", "pub.test"), ("http://pub.test:8080/", "pub.test:8080")):
        seen = json.loads(agent.get(url, "--header", "X-Forwarded-For: 1.2.3.4").last["body"])
        assert seen["host"] == host
        added = {name for name in seen["headers"] if name.lower().startswith(("x-", "via", "forwarded"))}
        assert added == set()


@pytest.mark.parametrize(
    "name", ["denied.test", "x.pub.test", "test", "ub.test", "xpub.test", "wild.test.evil", "clawker-fw.invalid"]
)
def test_other_names_do_not_exist(name: str, agent: Peer, envoy: str, witnesses: Witnesses) -> None:
    """Without a rule, a name does not resolve, for any type of query."""
    for kind in ("A", "AAAA", "TXT", "MX", "ANY"):
        answer = agent.ask("resolve", name, "--type", kind)
        assert not answer.last["answers"], (name, kind)
    assert agent.ask("resolve", "pub.test").last["answers"] == [envoy]
    refused = witnesses.refused(lambda: agent.get(f"https://{name}/"), agent, "https://pub.test")
    assert refused.kind == "dns-nxdomain"


def test_an_allowed_name_has_no_other_records(agent: Peer, envoy: str) -> None:
    """An allowed name resolves to Envoy's address and nothing else, so that clients can't choose another way."""
    assert agent.ask("resolve", "pub.test", "--type", "A").last["answers"] == [envoy]
    for kind in ("AAAA", "TXT", "MX", "HTTPS", "SVCB", "ANY"):
        answer = agent.ask("resolve", "pub.test", "--type", kind)
        assert answer.last["rcode"] == "NOERROR"
        assert not answer.last["answers"], kind


def test_dns_is_no_tunnel(agent: Peer, neighbour: Peer, firewall: Firewall, envoy: str) -> None:
    """No query leaves the resolver, which only knows its list."""
    service = firewall.status()["agent"]["dns"]
    for server in (service, "127.0.0.11"):
        answer = agent.ask("resolve", "aGVsbG8.denied.test", "--server", f"{server}:53", "--type", "TXT")
        assert answer.last["rcode"] == "NXDOMAIN"
        assert agent.ask("resolve", "pub.test", "--server", f"{server}:53").last["answers"] == [envoy]
    question = ("resolve", "denied.test", "--server", f"{NAMESERVER}:53", "--timeout", "1s")
    assert neighbour.ask(*question).last["answers"] == [WORLD]
    assert not agent.ask(*question).ok


REFUSED = {"reset", "closed"}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("https://denied.test/", []),
        ("https://x.pub.test/", []),
        ("https://pub.test/", ["--sni", "denied.test"]),
        ("https://pub.test/", ["--sni", ""]),
        ("https://web.test/", []),
        ("https://wild.test:8443/", []),
        ("https://pub.test:80/", []),
        ("https://pub.test:8080/", []),
        ("https://evil-wild.test/", []),
    ],
)
def test_tls_to_other_names_is_refused(
    url: str, options: list[str], agent: Peer, envoy: str, witnesses: Witnesses
) -> None:
    """An agent that uses Envoy's address needs an allowed server name on the right port."""
    refused = witnesses.refused(
        lambda: agent.get(url, "--connect", envoy, *options), agent, "https://pub.test", "--connect", envoy
    )
    assert refused.kind in REFUSED, refused


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://denied.test/", "denied.test"),
        ("http://pub.test/", "denied.test"),
        ("http://pub.test/", "pub.test.denied.test"),
        ("http://wild.test/", "wild.test"),
        ("http://web.test:8080/", "web.test:8080"),
        ("http://pub.test:443/", "pub.test:443"),
    ],
)
def test_http_to_other_hosts_is_refused_in_words(
    url: str, host: str, agent: Peer, envoy: str, witnesses: Witnesses
) -> None:
    """A response of 403 says that the firewall refused the request, and why."""
    refused = witnesses.refused(
        lambda: agent.get(url, "--connect", envoy, "--host", host), agent, "http://pub.test", "--connect", envoy
    )
    assert refused.last["status"] == 403
    assert "no rule allows this host over http" in refused.last["body"]


def test_the_port_in_a_host_header_is_not_believed(agent: Peer, envoy: str) -> None:
    """`Host: pub.test:2222` reaches port 80, and not a server on port 2222."""
    answer = agent.get("http://pub.test/", "--connect", envoy, "--host", "pub.test:2222")
    assert answer.ok
    seen = json.loads(answer.last["body"])
    assert (seen["name"], seen["address"], seen["port"]) == ("world", WORLD, 80)


def test_other_ports_are_closed(agent: Peer, envoy: str) -> None:
    """Envoy only listens on the ports of the rules, and its admin interface has no port."""
    for port in (80, 443, 8080, 8443):
        assert agent.ask("probe-tcp", f"{envoy}:{port}", "--timeout", "1s").ok, port
    for port in (22, 53, 2222, 9901, 15000, 19000):
        found = agent.ask("probe-tcp", f"{envoy}:{port}", "--timeout", "1s")
        assert found.last["error"] == "connect-refused", port


@pytest.mark.parametrize("name", PRIVATE)
def test_private_addresses_are_refused(name: str, agent: Peer, neighbour: Peer, witnesses: Witnesses) -> None:
    """A name that resolves to a private, shared or link-local address is not reached, though a server is there."""
    assert json.loads(neighbour.get(f"http://{PRIVATE[name]}/").last["body"])["address"] == PRIVATE[name]
    refused = witnesses.refused(lambda: agent.get(f"http://{name}.test/"), agent, "http://pub.test")
    assert refused.last["status"] == 503, refused
    if name != "gateway":
        refused = witnesses.refused(lambda: agent.get(f"https://{name}.test/"), agent, "https://pub.test")
        assert refused.kind in REFUSED


def test_loopback_is_refused(agent: Peer, process: int, world: World, witnesses: Witnesses) -> None:
    """A name that resolves to loopback does not reach a server on Envoy's loopback."""
    command = world.argv("get", "http://127.0.0.1/", process=process)
    there = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(json.loads(there.stdout)["body"])["name"] == "loopback"
    for name in ("loop", "loop2"):
        refused = witnesses.refused(lambda: agent.get(f"http://{name}.test/"), agent, "http://pub.test")  # noqa: B023 - asked at once
        assert refused.last["status"] == 503, refused
    refused = witnesses.refused(lambda: agent.get("https://loop.test/"), agent, "https://pub.test")
    assert refused.kind in REFUSED


def test_agents_and_envoy_are_refused(
    agent: Peer, firewall: Firewall, peers: Peers, envoy: str, witnesses: Witnesses
) -> None:
    """A name that resolves to an agent or Envoy is not reached, even with `allow_private`."""
    other = firewall.agent(peers)
    for address in (agent.address("clawker-net"), envoy):
        assert other.ask("probe-tcp", f"{address}:80").ok
    other.remove()
    for name in ("agent", "self", "agent2", "self2"):
        refused = witnesses.refused(lambda: agent.get(f"http://{name}.test/"), agent, "http://pub.test")  # noqa: B023 - asked at once
        assert refused.last["status"] == 503, refused


def test_the_world_is_reached_though_a_private_address_is_offered_too(agent: Peer) -> None:
    """If a name has a private and a public address, only the public one is connected to."""
    for _ in range(5):
        for scheme in ("http", "https"):
            seen = json.loads(agent.get(f"{scheme}://mixed.test/").last["body"])
            assert (seen["host"], seen["address"]) == ("mixed.test", WORLD)


def test_allow_private_allows_private(agent: Peer) -> None:
    """Such a rule reaches private addresses."""
    seen = json.loads(agent.get("http://private2.test/").last["body"])
    assert (seen["name"], seen["address"]) == ("world", PRIVATE["private"])


def test_agents_have_no_other_way_out(agent: Peer, neighbour: Peer, world: World, envoy: str) -> None:
    """An agent can connect to none of the addresses that a container next to Envoy can."""
    addresses = {
        address["local"]
        for interface in json.loads(world.engine.run_in_network(["ip", "-j", "address"]).stdout)
        for address in interface["addr_info"]
        if address["family"] == "inet" and not address["local"].startswith("127.")
    }
    assert {WORLD, NAMESERVER, *PRIVATE.values()} <= addresses
    for target in (*(f"{address}:80" for address in sorted(addresses)), f"{WORLD}:443", f"{NAMESERVER}:53"):
        assert neighbour.ask("probe-tcp", target, "--timeout", "1s").ok, target
        assert not agent.ask("probe-tcp", target, "--timeout", "1s").ok, target
    assert agent.ask("probe-tcp", f"{envoy}:80", "--timeout", "1s").ok


def test_nobody_comes_in_by_the_way_out(
    neighbour: Peer, process: int, world: World, agent: Peer, envoy: str
) -> None:
    """A container on the egress network can reach Envoy's addresses, but no listener there."""
    there = ["nsenter", f"--net={world.engine.root}/proc/{process}/ns/net", "ip", "-j", "address"]
    addresses = [
        address["local"]
        for interface in json.loads(subprocess.run(there, capture_output=True, check=True).stdout)
        for address in interface["addr_info"]
        if address["local"].startswith("10.214.")
    ]
    assert len(addresses) == 3
    world.serve("origin", "--address", addresses[0], "--http", "81", process=process)
    assert neighbour.ask("probe-tcp", f"{addresses[0]}:81", "--timeout", "1s").ok
    for address in addresses:
        for port in (80, 443, 8443):
            assert not neighbour.ask("probe-tcp", f"{address}:{port}", "--timeout", "1s").ok, (address, port)
    for port in (80, 443, 8443):
        assert agent.ask("probe-tcp", f"{envoy}:{port}", "--timeout", "1s").ok, port


def test_envoy_is_no_router(firewall: Firewall, world: World, peers: Peers) -> None:
    """Both siblings drop packets for other addresses, even if the host forwards."""
    for sibling in ("envoy", "coredns"):
        pid = process_of(firewall, sibling, peers)
        command = ["nsenter", f"--net={world.engine.root}/proc/{pid}/ns/net"]
        read = subprocess.run([*command, "cat", "/proc/sys/net/ipv4/ip_forward"], capture_output=True, check=True)
        assert read.stdout.strip() == b"0"
        assert (
            peers.client.inspect_container(firewall.container(sibling))["HostConfig"]["Sysctls"][
                "net.ipv4.ip_forward"
            ]
            == "0"
        )


def test_refusals_are_recorded(agent: Peer, peers: Peers, envoy: str, firewall: Firewall) -> None:
    """The siblings' logs contain who was refused what."""
    agent.get("https://denied-tls.test/", "--connect", envoy)
    agent.get("http://denied-http.test/", "--connect", envoy)
    agent.ask("resolve", "denied-dns.test")
    sdk = peers.client

    def recorded() -> dict[str, Any] | None:
        proxy = sdk.logs(firewall.container("envoy"), tail=50).decode()
        records = [json.loads(line) for line in proxy.splitlines() if line.startswith("{")]
        named = {record["name"]: record for record in records}
        return named if {"denied-tls.test", "denied-http.test"} <= set(named) else None

    named = until(recorded, 1)
    assert named["denied-tls.test"]["reason"] == "no-rule"
    assert named["denied-http.test"]["reason"] == "no-rule"
    resolver = sdk.logs(firewall.container("coredns"), tail=50).decode()
    asked = [json.loads(line) for line in resolver.splitlines() if line.startswith("{")]
    assert {"denied-dns.test"} == {each["name"] for each in asked if each["reason"] == "no-rule"} & {
        "denied-dns.test",
        "refused.clawker-fw.invalid",
    }


def test_no_rules_denies_everything(
    world: World, tmp_path: Path, agent: Peer, peers: Peers, witnesses: Witnesses
) -> None:
    """Without rules, no name resolves and nothing is forwarded, until there is a rule."""
    firewall = Firewall(world.engine.host, "empty", tmp_path)
    firewall.write()
    firewall.run()
    fenced = firewall.agent(peers)
    envoy = firewall.status()["siblings"][0]["address"]
    assert (
        witnesses.refused(lambda: fenced.get("https://pub.test/"), agent, "https://pub.test").kind
        == "dns-nxdomain"
    )
    direct = ("--connect", envoy)
    refused = witnesses.refused(lambda: fenced.get("https://pub.test/", *direct), agent, "https://pub.test")
    assert refused.kind in REFUSED
    refused = witnesses.refused(lambda: fenced.get("http://pub.test/", *direct), agent, "http://pub.test")
    assert refused.last["status"] == 403
    firewall.write("pub.test")
    firewall.call("reload").expect()
    assert json.loads(fenced.get("https://pub.test/").last["body"])["address"] == WORLD
    fenced.remove()
    firewall.call("down").expect()


def test_privileges_are_gone(firewall: Firewall, world: World, peers: Peers) -> None:
    """The programs run without privileges and capabilities in a read-only container."""
    for sibling in ("envoy", "coredns"):
        pid = process_of(firewall, sibling, peers)
        status = (world.engine.root / "proc" / str(pid) / "status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["Uid"].split() == fields["Gid"].split() == ["65532"] * 4
        assert all(int(fields[name], 16) == 0 for name in fields if name.startswith("Cap"))
        assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize("protocol", ["http", "https"])
def test_a_private_address_is_on_record(protocol: str, firewall: Firewall, agent: Peer, peers: Peers) -> None:
    """There is one line, with the agent that has asked, and the reason, whatever the protocol."""
    assert not agent.get(f"{protocol}://private.test/").ok

    def recorded() -> list[dict[str, Any]]:
        lines = peers.client.logs(firewall.container("envoy")).decode().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        port = {"http": 80, "https": 443}[protocol]
        return [each for each in records if (each["name"], each["port"]) == ("private.test", port)]

    found = until(recorded, 5)
    assert {each["reason"] for each in found} == {"private-address"}, found
    own = agent.address(firewall.status()["agent"]["network"])
    assert {each["source"].partition(":")[0] for each in found} == {own}


@pytest.mark.parametrize(
    "case",
    [
        ("pub.test", "https://pub.test", "https://wild.test"),
        ({"dst": "pub.test", "proto": "http"}, "http://pub.test", "http://pub.test:8080"),
    ],
    ids=["https", "http"],
)
def test_a_rule_taken_away_ends_its_connections(
    case: tuple[str | dict[str, Any], str, str],
    firewall: Firewall,
    agent: Peer,
    peers: Peers,
    witnesses: Witnesses,
) -> None:
    """After the drain time, connections of a removed rule are cut, long HTTP requests too, and no others."""
    rule, url, other = case
    stays = firewall.agent(peers, "download", f"{other}/bytes?seconds=30&rate=100000")
    goes = firewall.agent(peers, "download", f"{url}/bytes?seconds=60&rate=100000")
    assert agent.get(f"{url}/").ok
    firewall.write(*[each for each in RULES if each != rule])
    firewall.call("reload").expect()
    witnesses.refused(lambda: agent.get(f"{url}/"), agent, other)
    assert not goes.finish().last["ok"]
    assert stays.finish().last["ok"]
    firewall.write(*RULES)
    firewall.call("reload").expect()
    assert agent.get(f"{url}/").ok
