"""What agents can reach, and what they can't, on a real engine with real programs."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devkit.engines import PrivateEngine, available, private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.peers import Peer, Peers, peer_program
from devkit.waiting import until

WORLD = "203.0.113.10"
"""The origin in the world: an address of TEST-NET-3 (RFC 5737), held by the engine's own network."""

NAMESERVER = "203.0.113.53"

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


class World:
    """A private engine whose network holds an origin with a public address, and the DNS that knows it."""

    def __init__(self, engine: PrivateEngine, stack: ExitStack) -> None:
        """Add the addresses and start the programs."""
        self.engine = engine
        program = str(peer_program("amd64"))
        for address in (WORLD, NAMESERVER, "10.9.9.9", "100.64.0.1", "169.254.169.254"):
            engine.run_in_network(["ip", "address", "add", f"{address}/32", "dev", "lo"])
        self._stack = stack
        self._program = program
        self.serve("origin", "--http", "80,8080,2222", "--https", "443,8443")

    def serve(self, *arguments: str) -> None:
        """Run the peer program in the engine's network until the end."""
        argv = self.engine.network_argv(self._program, *arguments)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._stack.callback(process.communicate)
        self._stack.callback(process.terminate)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"

    def resolve(self, zone: dict[str, list[str]]) -> None:
        """Answer names to everybody who asks the engine's resolver."""
        entries = ",".join(f"{name}={'+'.join(addresses)}" for name, addresses in zone.items())
        self.serve("dns", "--listen", f"{NAMESERVER}:53", "--zone", entries)


@pytest.fixture(scope="module")
def world(require_engine: bool) -> Iterator[World]:  # noqa: FBT001 - a fixture
    """The world, for all tests here."""
    if (reason := available()) and not require_engine:
        pytest.skip(f"ENFORCEMENT IS NOT TESTED: {reason}")
    with ExitStack() as stack:
        engine = stack.enter_context(private_engine(dns=[NAMESERVER]))
        yield World(engine, stack)


@pytest.fixture(scope="module")
def firewall(world: World, tmp_path_factory: pytest.TempPathFactory) -> Firewall:
    """A stack in that world."""
    made = Firewall(world.engine.host, "clawker", tmp_path_factory.mktemp("world"))
    made.write(*RULES)
    made.run()
    return made


@pytest.fixture(scope="module")
def peers(world: World, firewall: Firewall) -> Iterator[Peers]:
    """Origins and agents in that world."""
    del firewall
    sdk = client(world.engine.host)
    yield Peers(sdk)
    sdk.close()


@pytest.fixture(scope="module")
def agent(firewall: Firewall, peers: Peers, world: World) -> Peer:
    """An agent, whose own address and Envoy's are in the world's DNS as well."""
    made = firewall.agent(peers)
    status = firewall.status()
    own = {
        "agent.test": [made.address(status["agent"]["network"])],
        "self.test": [status["siblings"][0]["address"]],
        "gateway.test": ["10.214.0.1"],
    }
    doubles = {"agent2.test": own["agent.test"], "self2.test": own["self.test"]}
    world.resolve(ZONE | own | doubles | {"loop2.test": ["127.0.0.1"], "private2.test": ["10.9.9.9"]})
    return made


@pytest.fixture(scope="module")
def envoy(firewall: Firewall) -> str:
    """Envoy's address, for agents that know it and ask no resolver."""
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
    assert seen["remote_address"].startswith("10.214.0."), "not through Envoy"


def test_the_origin_sees_the_host_as_the_agent_wrote_it(agent: Peer) -> None:
    """The Host header keeps its port, and nothing that a proxy adds is in the request."""
    for url, host in (("http://pub.test/", "pub.test"), ("http://pub.test:8080/", "pub.test:8080")):
        seen = json.loads(agent.get(url, "--header", "X-Forwarded-For: 1.2.3.4").last["body"])
        assert seen["host"] == host
        added = {name for name in seen["headers"] if name.lower().startswith(("x-", "via", "forwarded"))}
        assert added == set()


@pytest.mark.parametrize(
    "name", ["denied.test", "x.pub.test", "test", "ub.test", "xpub.test", "wild.test.evil", "clawker-fw.invalid"]
)
def test_other_names_do_not_exist(name: str, agent: Peer) -> None:
    """No rule, no name: not for addresses, not for any other type."""
    for kind in ("A", "AAAA", "TXT", "MX", "ANY"):
        answer = agent.ask("resolve", name, "--type", kind)
        assert not answer.last["answers"], (name, kind)
    assert agent.get(f"https://{name}/").kind == "dns-nxdomain"


def test_an_allowed_name_has_no_other_records(agent: Peer) -> None:
    """An allowed name answers with Envoy's address and nothing else, so that no client looks for another way."""
    for kind in ("AAAA", "TXT", "MX", "HTTPS", "SVCB", "ANY"):
        answer = agent.ask("resolve", "pub.test", "--type", kind)
        assert answer.last["rcode"] == "NOERROR"
        assert not answer.last["answers"], kind


def test_dns_is_no_tunnel(agent: Peer, firewall: Firewall) -> None:
    """No query leaves: the world's resolver is not reached, and ours knows only the zone."""
    service = firewall.status()["agent"]["dns"]
    for server in (service, "127.0.0.11"):
        answer = agent.ask("resolve", "aGVsbG8.denied.test", "--server", f"{server}:53", "--type", "TXT")
        assert answer.last["rcode"] == "NXDOMAIN"
    outside = agent.ask("resolve", "denied.test", "--server", f"{NAMESERVER}:53", "--timeout", "1s")
    assert not outside.ok


REFUSED = {"reset", "closed", "tls"}


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
def test_tls_to_other_names_is_refused(url: str, options: list[str], agent: Peer, envoy: str) -> None:
    """An agent that knows Envoy's address gets no further without an allowed server name on its own port."""
    answer = agent.get(url, "--connect", envoy, *options)
    assert answer.kind in REFUSED, answer


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://denied.test/", []),
        ("http://pub.test/", ["--host", "denied.test"]),
        ("http://pub.test/", ["--host", "pub.test.denied.test"]),
        ("http://wild.test/", []),
        ("http://web.test:8080/", []),
        ("http://pub.test:443/", []),
        ("http://pub.test/", ["--host", "pub.test", "--absolute-form", "--header", "X: y"]),
    ],
)
def test_http_to_other_hosts_is_refused_in_words(url: str, options: list[str], agent: Peer, envoy: str) -> None:
    """An answer of 403 says that the firewall refused, and why."""
    answer = agent.get(url, "--connect", envoy, *options)
    if "--absolute-form" in options:
        assert answer.ok  # the same host in absolute form is allowed
        return
    assert answer.last["status"] == 403
    assert "no rule allows this host over http" in answer.last["body"]


def test_the_port_in_a_host_header_is_not_believed(agent: Peer, envoy: str) -> None:
    """`Host: pub.test:2222` reaches port 80, not what listens on 2222."""
    answer = agent.get("http://pub.test/", "--connect", envoy, "--host", "pub.test:2222")
    assert answer.ok
    assert json.loads(answer.last["body"])["port"] == 80


def test_other_ports_are_closed(agent: Peer, envoy: str) -> None:
    """Envoy listens on the ports of the rules and on no other; its admin interface is on none."""
    for port in (22, 53, 2222, 9901, 15000, 19000):
        assert not agent.ask("probe-tcp", f"{envoy}:{port}", "--timeout", "1s").ok


@pytest.mark.parametrize("name", ["loop", "local", "private", "shared", "self", "agent", "gateway"])
def test_private_addresses_are_refused(name: str, agent: Peer) -> None:
    """A name that resolves to loopback, link-local, private or our own addresses goes nowhere."""
    answer = agent.get(f"http://{name}.test/")
    assert answer.last["status"] == 503, answer
    if name not in {"self", "agent", "gateway"}:
        assert agent.get(f"https://{name}.test/").kind in REFUSED


def test_the_world_is_reached_though_a_private_address_is_offered_too(agent: Peer) -> None:
    """Of a name with a private and a public address, only the public one is ever connected to."""
    for _ in range(5):
        seen = json.loads(agent.get("http://mixed.test/").last["body"])
        assert seen["host"] == "mixed.test"
    assert agent.get("https://mixed.test/").ok


def test_allow_private_allows_private_and_not_ours(agent: Peer) -> None:
    """Such a rule reaches private addresses, but neither loopback, nor agents, nor Envoy itself."""
    assert agent.get("http://private2.test/").ok
    for name in ("loop2", "agent2", "self2"):
        assert agent.get(f"http://{name}.test/").last["status"] == 503


def test_agents_have_no_other_way_out(agent: Peer, world: World) -> None:
    """No address but the siblings' and other agents' can be reached: not the world, not the host."""
    for target in (
        f"{WORLD}:80",
        f"{WORLD}:443",
        f"{NAMESERVER}:53",
        "10.214.0.1:80",
        "10.213.0.1:80",
        "10.9.9.9:80",
    ):
        answer = agent.ask("probe-tcp", target, "--timeout", "1s")
        assert not answer.ok, target
    for interface in json.loads(world.engine.run_in_network(["ip", "-j", "address"]).stdout):
        for address in interface["addr_info"]:
            if address["family"] == "inet":
                target = f"{address['local']}:80"
                assert target.startswith("127.") or not agent.ask("probe-tcp", target, "--timeout", "1s").ok


def test_nobody_comes_in_by_the_way_out(firewall: Firewall, peers: Peers) -> None:
    """A container on the egress network finds no listener at any of Envoy's addresses there."""
    outsider = peers.start("wait", network="clawker-egress")
    egress = firewall.status()["siblings"][0]
    assert egress["address"]
    for address in ("10.214.0.138", "10.214.0.148", "10.214.0.158"):
        for port in (80, 443, 8443):
            assert not outsider.ask("probe-tcp", f"{address}:{port}", "--timeout", "1s").ok
    outsider.remove()


def test_envoy_is_no_router(firewall: Firewall, world: World, peers: Peers) -> None:
    """Both siblings' kernels drop packets that are not for them, also where the host itself forwards."""
    for sibling in ("envoy", "coredns"):
        pid = peers.client.inspect_container(firewall.container(sibling))["State"]["Pid"]
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
    """Who was refused what stands in the siblings' logs."""
    agent.get("https://denied-tls.test/", "--connect", envoy)
    agent.get("http://denied-http.test/", "--connect", envoy)
    agent.ask("resolve", "denied-dns.test")
    sdk = peers.client

    def recorded() -> dict[str, Any] | None:
        proxy = sdk.logs(firewall.container("envoy"), tail=50).decode()
        records = [json.loads(line) for line in proxy.splitlines() if line.startswith("{")]
        named = {record["name"]: record for record in records}
        return named if {"denied-tls.test", "denied-http.test"} <= set(named) else None

    named = until(recorded)  # Envoy writes its log every ten seconds
    assert named["denied-tls.test"]["details"] == "filter_chain_not_found"
    assert named["denied-http.test"]["details"] == "direct_response"
    resolver = sdk.logs(firewall.container("coredns"), tail=50).decode()
    asked = [json.loads(line) for line in resolver.splitlines() if line.startswith("{")]
    assert {"denied-dns.test"} == {each["name"] for each in asked if each["details"] == "no-rule"} & {
        "denied-dns.test",
        "refused.clawker-fw.invalid",
    }


def test_no_rules_denies_everything(world: World, tmp_path: Path, peers: Peers) -> None:
    """A stack without rules answers no name and forwards nothing."""
    firewall = Firewall(world.engine.host, "empty", tmp_path)
    firewall.write()
    firewall.run()
    agent = firewall.agent(peers)
    envoy = firewall.status()["siblings"][0]["address"]
    assert agent.get("https://pub.test/").kind == "dns-nxdomain"
    assert agent.get("https://pub.test/", "--connect", envoy).kind in REFUSED
    assert agent.get("http://pub.test/", "--connect", envoy).last["status"] == 403
    agent.remove()
    firewall.call("down").expect()


def test_privileges_are_gone(firewall: Firewall, world: World, peers: Peers) -> None:
    """The programs run as nobody, without any capability, in a read-only container."""
    for sibling in ("envoy", "coredns"):
        pid = peers.client.inspect_container(firewall.container(sibling))["State"]["Pid"]
        status = (world.engine.root / "proc" / str(pid) / "status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["Uid"].split() == fields["Gid"].split() == ["65532"] * 4
        assert all(int(fields[name], 16) == 0 for name in fields if name.startswith("Cap"))
        assert fields["NoNewPrivs"] == "1"


def test_a_rule_taken_away_ends_its_connections(
    firewall: Firewall, agent: Peer, peers: Peers, world: World
) -> None:
    """Connections of a rule that is gone are cut after the drain time, and no others are."""
    del world
    stays = firewall.agent(peers, "download", "https://wild.test/bytes?seconds=9&rate=100000")
    goes = firewall.agent(peers, "download", "https://pub.test/bytes?seconds=20&rate=100000")
    assert agent.get("https://pub.test/").ok
    firewall.write(*[rule for rule in RULES if rule != "pub.test"])
    firewall.call("reload").expect()
    assert not agent.get("https://pub.test/").ok
    assert stays.finish().last["ok"]
    assert not goes.finish().last["ok"]
    firewall.write(*RULES)
    firewall.call("reload").expect()
    assert agent.get("https://pub.test/").ok
