"""Attacks by a hostile agent on a real engine, judged by records and by the logs of origins and name server."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

import pytest
from docker import APIClient

from clawker_fw.stack.container import HELPER_PATH, PAGE_PORT
from clawker_fw.stack.envoy.lookups import DNS_PORT, FORWARDER
from devkit.attacks import ATTACKS, Attack
from devkit.attacks.addresses import HOST_PORT, PRIVATE, RELAY_PORT
from devkit.attacks.attack import ALLOWED, ENDED, EVIL, Who, result_of
from devkit.attacks.datagrams import HEARD, TALK
from devkit.attacks.literals import ELSEWHERE
from devkit.attacks.site import POLICY, RULES, TELEMETRY, Site, addresses_of, site_in
from devkit.dns import query
from devkit.engines import inherited, private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.peers import Answer, Peer, Peers
from devkit.processes import processes, program
from devkit.programs import machine
from devkit.waiting import until
from devkit.witness import Seen
from devkit.world import NAMESERVER, WORLD, world_around

SHARERS = 300
"""Half of the tests share a simulated internet. The refusals of all don't fit into an agent's share of the log."""

IN_THE_OTHER_SLOT = {
    "A name without a rule",
    "A name without a rule, of the resolver's other address",
    "A server name without a rule",
    "No server name",
    "A host without a rule",
    "CONNECT",
    "A whole request, then a request",
    "An allowed name that leads to loopback, over HTTP",
    "An allowed name that leads to a private address, over HTTP",
    "An address that stands for no name",
    "TLS with a server name without a rule",
    "The port of Envoy's administration",
    "QUIC to Envoy",
}
"""One attack of each kind."""


@pytest.fixture(scope="module")
def site(
    needs_engine: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A firewall in a simulated internet, for all tests of this module."""
    needs_engine()
    with (
        private_engine(dns=[NAMESERVER]) as engine,
        world_around(engine, tmp_path_factory.mktemp("said"), machine()) as world,
        closing(client(engine.host)) as docker,
    ):
        yield site_in(world, Peers(docker), tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def second(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A second firewall beside the first one, for anything that would disturb other tests."""
    firewall = Firewall(site.firewall.host, "second", tmp_path_factory.mktemp("second"))
    firewall.write(*RULES)
    firewall.run()
    return site.beside(firewall)


@pytest.fixture
def agent(site: Site) -> Peer:
    """The agent, which is also a server."""
    return site.agent


@pytest.fixture
def neighbour(site: Site) -> Peer:
    """A container on the egress network, without any firewall rules."""
    return site.who[Who.NEIGHBOUR]


@pytest.fixture
def envoy(site: Site) -> str:
    """Envoy's address, for agents that use it directly."""
    return site.places["envoy"]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.what)
def test_attack(attack: Attack, site: Site) -> None:
    """The agent gets the expected answer, nobody is contacted, no other name is resolved; one record appears."""
    performed = site.perform(attack)
    assert performed.result == attack.result
    arrived = [
        (each["name"], each["address"], each["port"], each["host"], each["target"])
        for each in performed.arrived
        if each["event"] == "request"
    ]
    assert arrived == [("world", attack.at, attack.port, attack.host, target) for target in attack.arrives]
    heard = [each["name"].removesuffix(".") for each in performed.arrived if each["event"] == "query"]
    assert heard == list(attack.heard)
    assert attack.arrives or attack.heard or attack.connects or not performed.arrived
    assert {each["address"] for each in performed.arrived if each["event"] == "connection"} <= {attack.at}
    assert all(POLICY.resolves(name) for name in performed.looked_up), performed.looked_up
    assert performed.recorded == ([(attack.reason, attack.name)] if attack.reason else [])


def test_the_origin_sees_the_request_as_the_agent_wrote_it(site: Site) -> None:
    """It comes from Envoy with the agent's Host header, including the port, and without proxy headers."""
    for url, host in (("http://pub.test/", "pub.test"), ("http://pub.test:8080/", "pub.test:8080")):
        seen = json.loads(site.agent.get(url, "--header", "X-Forwarded-For: 1.2.3.4").last["body"])
        assert seen["host"] == host
        assert seen["remote_address"].startswith("10.214.0.")
        added = {name for name in seen["headers"] if name.lower().startswith(("x-", "via", "forwarded"))}
        assert added == set()


def test_what_private_names_lead_to_is_there(neighbour: Peer, site: Site, envoy: str) -> None:
    """Control of the attacks by names: every forbidden address has a server."""
    for address in PRIVATE.values():
        assert json.loads(neighbour.get(f"http://{address}/").last["body"])["address"] == address
    command = site.world.argv("get", "http://127.0.0.1/", process=site.pid("envoy"))
    there = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(json.loads(there.stdout)["body"])["name"] == "loopback"
    other = site.firewall.agent(site.peers)
    for address in (site.places["agent"], envoy):
        assert other.ask("probe-tcp", f"{address}:80").ok
    other.remove()


def test_the_world_is_reached_though_a_private_address_is_offered_too(agent: Peer) -> None:
    """If a name has a private and a public address, only the public one is connected to."""
    for _ in range(5):
        for scheme in ("http", "https"):
            seen = json.loads(agent.get(f"{scheme}://mixed.test/").last["body"])
            assert (seen["host"], seen["address"]) == ("mixed.test", WORLD)


def test_a_name_that_changes_between_check_and_connect(agent: Peer, site: Site) -> None:
    """A name that alternates between public and private leads to the public address, or nowhere."""
    seen: list[Seen] = []

    def both() -> bool:
        seen.append(site.witnesses.watch(lambda: agent.get("https://changing.test/"), agent, "https://pub.test"))
        return {result_of(each.answer) for each in seen} == {"200", "closed"}

    until(both)  # an answer is valid for a second
    assert {event["address"] for each in seen for event in each.events} == {WORLD}


def test_agents_have_no_other_way_out(agent: Peer, neighbour: Peer, site: Site, envoy: str) -> None:
    """An agent can connect to none of the host's addresses that a container next to Envoy can reach."""
    addresses = {
        address["local"]
        for interface in json.loads(site.world.engine.run_in_network(["ip", "-j", "address"]).stdout)
        for address in interface["addr_info"]
        if address["family"] == "inet" and not address["local"].startswith("127.")
    }
    assert {WORLD, NAMESERVER, *PRIVATE.values()} <= addresses
    for target in (f"{address}:80" for address in sorted(addresses)):
        assert neighbour.ask("probe-tcp", target, "--timeout", "1s").ok, target
        assert not agent.ask("probe-tcp", target, "--timeout", "1s").ok, target
    assert agent.ask("probe-tcp", f"{envoy}:80", "--timeout", "1s").ok


def test_nobody_comes_in_by_the_way_out(neighbour: Peer, site: Site, agent: Peer, envoy: str) -> None:
    """A container on the egress network reaches no listener of Envoy, not even by a route to agents' addresses."""
    process = site.pid("envoy")
    there = ["nsenter", f"--net={site.world.engine.root}/proc/{process}/ns/net", "ip", "-j", "address"]
    addresses = [
        address["local"]
        for interface in json.loads(subprocess.run(there, capture_output=True, check=True).stdout)
        for address in interface["addr_info"]
        if address["local"].startswith("10.214.")
    ]
    assert len(addresses) == 4
    site.world.serve("origin", "--address", addresses[0], "--http", "81", process=process)
    assert neighbour.ask("probe-tcp", f"{addresses[0]}:81", "--timeout", "1s").ok
    knocked = [f"{address}:{port}" for address in addresses for port in (80, 443, 8443)]
    with ThreadPoolExecutor(len(addresses)) as pool:
        opened = pool.map(lambda place: neighbour.ask("probe-tcp", place, "--timeout", "1s").ok, knocked)
        assert [place for place, is_open in zip(knocked, opened, strict=True) if is_open] == []
    for port in (80, 443, 8443):
        assert agent.ask("probe-tcp", f"{envoy}:{port}", "--timeout", "1s").ok, port
    behind = {f"{envoy}:443", f"{site.places['own']}:8443"}
    asks = ("resolve", HEARD, "--timeout", "1s", "--server", f"{site.places[TALK]}:{HOST_PORT}")
    for address in addresses:
        _route(site, "10.213.0.0/20", address)
        for place in (*behind, f"{site.places['relay']}:{RELAY_PORT}"):
            assert not neighbour.ask("probe-tcp", place, "--timeout", "300ms").ok, (place, address)
            assert not _from_the_host(site, "probe-tcp", place, "--timeout", "300ms"), (place, address)
        assert not _from_the_host(site, *asks)
    assert agent.ask(*asks).ok
    for place in behind:
        assert agent.ask("probe-tcp", place, "--timeout", "1s").ok, place
    _route(site, "192.0.2.0/24", addresses[0])
    _there(site, process, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    try:
        site.world.serve("origin", "--address", "192.0.2.1", "--http", "81", process=process)
        assert neighbour.ask("probe-tcp", "192.0.2.1:81", "--timeout", "1s").ok  # the control of such routes
    finally:
        _there(site, process, "ip", "address", "delete", "192.0.2.1/32", "dev", "lo")
    assert site.firewall.current()


def _there(site: Site, process: int, *command: str) -> str:
    namespace = f"--net={site.world.engine.root}/proc/{process}/ns/net"
    return subprocess.run(["nsenter", namespace, *command], capture_output=True, check=True, text=True).stdout


def _route(site: Site, network: str, gateway: str) -> None:
    """Route traffic for a network from the host and the neighbour to an address on the egress network."""
    container = site.peers.client.inspect_container(site.who[Who.NEIGHBOUR].container)
    command = ("ip", "route", "replace", network, "via", gateway)
    _there(site, int(container["State"]["Pid"]), *command)
    site.world.engine.run_in_network(command)


def _from_the_host(site: Site, *command: str) -> bool:
    return subprocess.run(site.world.argv(*command), capture_output=True, check=False).returncode == 0


def test_a_rule_for_datagrams_taken_away(site: Site, agent: Peer) -> None:
    """Its host gets no more datagrams once `reload` has returned, until the rule is back."""
    firewall = site.firewall
    asks = ("resolve", HEARD, "--timeout", "1s", "--server", f"{site.places[TALK]}:{HOST_PORT}")
    assert agent.ask(*asks).ok
    fewer = [rule for rule in RULES if not (isinstance(rule, dict) and rule["dst"] == f"{TALK}.test")]
    firewall.write(*fewer, otel=TELEMETRY)
    firewall.call("reload").expect()
    site.witnesses.refused(lambda: agent.ask(*asks), agent, "https://pub.test")
    firewall.write(*RULES, otel=TELEMETRY)
    firewall.call("reload").expect()
    until(lambda: agent.ask(*asks).ok)


@pytest.mark.parametrize("sibling", ["envoy", "coredns"])
def test_a_sibling_is_no_router(sibling: str, site: Site) -> None:
    """Both containers drop packets for other addresses, although the host forwards, as every Docker host does."""
    here = site.world.engine.network_argv()
    assert inherited(here, "net.ipv4.conf.default.forwarding") == "1"
    command = ["nsenter", f"--net={site.world.engine.root}/proc/{site.pid(sibling)}/ns/net", "sh", "-c"]
    script = "cat /proc/sys/net/ipv4/conf/eth*/forwarding"
    read = subprocess.run([*command, script], capture_output=True, check=True)
    assert set(read.stdout.split()) == {b"0"}


def test_no_rules_denies_everything(site: Site, tmp_path: Path) -> None:
    """Without rules, no name resolves and nothing is forwarded, until a rule is added."""
    firewall = Firewall(site.firewall.host, "empty", tmp_path)
    firewall.write()
    firewall.run()
    fenced = firewall.agent(site.peers)
    url, direct = "https://pub.test/", ("--connect", firewall.status()["siblings"][0]["address"])

    def refused(*arguments: str) -> Answer:
        return site.witnesses.refused(lambda: fenced.get(*arguments), site.agent, "https://pub.test")

    assert refused(url).kind == "dns-nxdomain"
    assert refused(url, *direct).kind in ENDED
    assert refused("http://pub.test/", *direct).last["status"] == 403
    firewall.write("pub.test")
    firewall.call("reload").expect()
    assert json.loads(fenced.get(url).last["body"])["address"] == WORLD
    fenced.remove()
    firewall.call("down").expect()


def test_no_ping_arrives(agent: Peer, neighbour: Peer, site: Site) -> None:
    """The host's kernel receives no echo requests from an agent, at any of its addresses."""

    def received() -> int:
        lines = str(site.world.engine.run_in_network(["cat", "/proc/net/snmp"]).stdout).splitlines()
        names, values = (line.split() for line in lines if line.startswith("Icmp:"))
        return int(values[names.index("InEchos")])

    before = received()
    for place in (WORLD, NAMESERVER, *PRIVATE.values()):
        assert not agent.ask("ping", place, "--timeout", "100ms").ok
    assert received() == before
    assert neighbour.ask("ping", WORLD).ok
    assert received() == before + 1
    assert agent.ask("ping", site.places["envoy"]).ok


def test_a_host_that_does_not_check_sources_hears_more(site: Site) -> None:
    """With source checks off, a raw packet reaches a host's socket at any of its addresses, otherwise not."""
    name, forger, places = "unchecked.test", site.who[Who.FORGER], site.places
    setting = f"net.ipv4.conf.{places['bridge_name']}.rp_filter"
    listener = site.witnesses.origins[-1]

    def heard() -> bool:
        content = ("--via", places["bridge_hardware"], "--from", places[Who.FORGER], "--hex", query(name).hex())
        assert forger.ask("forge", f"{WORLD}:{HOST_PORT}", *content).ok
        return any(each.get("name") == f"{name}." for each in listener.said())

    assert not heard()
    site.world.engine.run_in_network(["sysctl", "-w", f"{setting}=0"])
    until(heard)
    site.world.engine.run_in_network(["sysctl", "-w", f"{setting}=2"])


def test_what_agents_broadcast(site: Site) -> None:
    """The host receives broadcasts unless it checks packet sources, and `status` says whether it does."""
    setting = f"net.ipv4.conf.{site.places['bridge_name']}.rp_filter"
    (pool,) = site.peers.client.inspect_network("clawker-net")["IPAM"]["Config"]
    targets = ("255.255.255.255", "224.0.0.1", str(ip_network(pool["Subnet"])[-1]))
    listener = site.witnesses.origins[-1]
    mine = ("--from", site.places[Who.AGENT], "--timeout", "300ms")

    def heard(checked: int) -> set[str]:
        """Send to each address with a different name, and return the addresses that the host received."""
        site.world.engine.run_in_network(["sysctl", "-w", f"{setting}={checked}"])
        for each in targets:
            site.agent.ask("resolve", f"{checked}.{each}", "--server", f"{each}:{HOST_PORT}", *mine)
        names = {line["name"] for line in listener.said() if line["event"] == "query"}
        return {each for each in targets if f"{checked}.{each}." in names}

    def warned() -> bool:
        status = site.world.engine.network_argv(*site.firewall.command("status", "--format", "json"))
        warnings = site.firewall.call_raw(status).expect().json["warnings"]
        return "host-hears-agents" in {each["code"] for each in warnings}

    until(lambda: heard(0) == {"255.255.255.255", "224.0.0.1"})
    assert warned()
    assert heard(1) == set()
    assert heard(2) == set()
    assert not warned()


def test_a_false_source_is_ignored(site: Site) -> None:
    """A query with a source outside the agent network is not even on record."""
    forger, began = site.who[Who.FORGER], time.time()
    hardware = site.places["coredns_hardware"]
    for source, name in (
        ("203.0.113.99", "false.test"),
        ("169.254.1.1", "local.test"),
        (site.places[Who.FORGER], "true.test"),
    ):
        content = ("--hex", query(name).hex())
        place = f"{site.places['resolver']}:53"
        assert forger.ask("forge", place, "--via", hardware, "--from", source, *content).ok

    def recorded() -> set[str]:
        log = site.peers.client.logs(site.firewall.container("coredns"), since=began).decode().splitlines()
        return {json.loads(line)["name"] for line in log if line.startswith("{")}

    until(lambda: "true.test" in recorded())
    assert recorded().isdisjoint({"false.test", "local.test"})


@pytest.mark.parametrize("sibling", ["envoy", "coredns"])
def test_nothing_else_listens(sibling: str, site: Site) -> None:
    """Each container listens for agents only on rules' ports or DNS, and on no abstract socket."""
    process = site.pid(sibling)
    sockets = set()
    for line in _there(site, process, "ss", "-H", "-l", "-n", "-p", "-t", "-u", "-w").splitlines():
        kind, _, _, _, place, *_, owner = line.split()
        # waits for an answer, on the way out, or where no agent can reach it
        asks = kind == "udp" and place.startswith(("10.214.", "127.0.0.1:"))
        if not (
            asks or owner.startswith('users:(("peer-') or place.startswith("127.0.0.11:")
        ):  # ours, the engine's
            sockets.add((kind, *place.rsplit(":", 1)))
    if sibling == "coredns":
        # At the port for the page, the packet filter admits only Envoy.
        everywhere = "0.0.0.0"  # noqa: S104 - nothing is bound here
        assert sockets == {("tcp", "*", "53"), ("udp", "*", "53"), ("tcp", everywhere, str(PAGE_PORT))}
    else:
        own = {
            (rule.transport, rule.destination.name, port) for rule in POLICY.rules.rules if rule.opaque
            for port in rule.ports
        }  # fmt: skip
        where = {name: site.agent.ask("resolve", name).last["answers"][0] for _, name, _ in own}
        assert sockets == {
            *(("tcp", site.places["envoy"], port) for port in ("80", "443", "8080", "8443")),
            ("tcp", site.places["relay"], str(RELAY_PORT)),
            *((transport, FORWARDER, str(DNS_PORT)) for transport in ("tcp", "udp")),  # on loopback
            *((transport, where[name], str(port)) for transport, name, port in own),
        }
    unix = [line.split() for line in _there(site, process, "cat", "/proc/net/unix").splitlines()[1:]]
    assert [line[7] for line in unix if len(line) > 7 and line[7].startswith("@")] == []


@pytest.mark.parametrize("sibling", ["envoy", "coredns"])
def test_privileges_are_gone(sibling: str, site: Site) -> None:
    """The programs run without privileges and capabilities in a read-only container."""
    status = (program(site.peers.client, site.firewall.container(sibling)) / "status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Gid"].split() == ["65532"] * 4
    assert len(users := set(fields["Uid"].split())) == 1
    assert int(users.pop()) >= 1 << 20, "a user that an image may have"
    assert all(int(fields[name], 16) == 0 for name in fields if name.startswith("Cap"))
    assert fields["NoNewPrivs"] == "1"


def test_nobody_else_administers_envoy(site: Site) -> None:
    """Apart from Envoy's own user, only root reaches the socket that can end it, so a hijacked helper can't."""
    container, docker = site.firewall.container("envoy"), site.peers.client
    owners = {group: user for user, group in _owners(docker, container)}
    root, program, *helpers = "0", "65532", "65530", "65531", "65533"
    assert owners.keys() == {root, program, *helpers}
    assert len(set(owners.values())) == len(owners)  # no helper is Envoy's user

    def reaches(group: str) -> bool:
        user = "0" if group == root else str(1 << 30)  # an engine starts nothing as one of 2^31 and above
        asking = docker.exec_create(container, [HELPER_PATH, "usage"], user=f"{user}:{group}")["Id"]
        docker.exec_start(asking)
        return bool(docker.exec_inspect(asking)["ExitCode"] == 0)

    assert {group for group in owners if reaches(group)} == {root}


def _owners(docker: APIClient, container: str) -> Iterator[tuple[str, str]]:
    for process in processes(docker, container):
        fields = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        yield fields["Uid"].split()[0], fields["Gid"].split()[0]


@pytest.mark.parametrize("sibling", ["envoy", "coredns"])
def test_a_stopped_sibling_lets_nothing_through(sibling: str, second: Site) -> None:
    """While it is stopped, nothing more gets through than before; afterwards everything is as before."""
    agent, docker = second.agent, second.peers.client
    container = second.firewall.container(sibling)
    direct = ("--connect", addresses_of(second.peers, second.firewall)["envoy"])

    def tried(name: str, *options: str) -> Answer:
        control = second.who[Who.FORGER]  # an agent of the first stack
        get = ("get", f"https://{name}/", "--timeout", "1s", *options)
        return second.witnesses.refused(lambda: agent.ask(*get), control, f"https://{ALLOWED}")

    def evil() -> Answer:
        for options in ((), ("--connect", ELSEWHERE)):
            assert not tried(EVIL, *options).ok
        return tried(EVIL, *direct)

    assert agent.get(f"https://{ALLOWED}/").ok
    assert evil().kind in ENDED
    docker.stop(container, timeout=1)
    assert not evil().ok
    assert not tried(ALLOWED).ok
    docker.start(container)
    until(lambda: agent.get(f"https://{ALLOWED}/").ok)
    assert evil().kind in ENDED


def test_a_forger_takes_an_address_over_unseen(second: Site) -> None:
    """With `NET_RAW` it diverts a neighbour's queries, without a warning, as the firewall asks no neighbour."""
    peers, resolver, network = second.peers, second.places["resolver"], f"{second.firewall.project}-net"
    victim = second.firewall.agent(peers)
    # With the forwarding that containers inherit, it would pass the queries on.
    forger = peers.start("wait", network=network, dns=resolver, sysctls={"net.ipv4.ip_forward": "0"})

    def hardware(peer: Peer) -> str:
        return str(
            peers.client.inspect_container(peer.container)["NetworkSettings"]["Networks"][network]["MacAddress"]
        )

    def asks(*options: str) -> Answer:
        return victim.ask("resolve", ALLOWED, "--server", resolver, "--timeout", "500ms", *options)

    claim = ("spoof", resolver, hardware(forger), "--tell", hardware(victim))
    assert asks().ok
    assert second.agent.ask(*claim).code == 1
    assert asks().ok
    until(lambda: forger.ask(*claim).ok and not asks().ok)  # a kernel keeps a new neighbour entry for a second
    assert resolver not in str(second.firewall.drift().expect().json["warnings"])
    until(lambda: asks().ok)  # the kernel asks again, and the resolver answers
    for each in (victim, forger):
        each.remove()


def test_the_other_slot_decides_alike(second: Site) -> None:
    """After a replacement both containers have other addresses, and the same attacks are refused there."""
    before = addresses_of(second.peers, second.firewall)
    second.firewall.draining("0").run("--force-recreate")
    there = second.beside(second.firewall)
    assert (there.places["envoy"], there.places["coredns"]) == (before["other_envoy"], before["other_coredns"])
    for attack in ATTACKS:
        if attack.what in IN_THE_OTHER_SLOT:
            test_attack(attack, there)


def test_rules_taken_away_end_their_connections(site: Site) -> None:
    """After the drain time, connections of removed rules are cut, even long HTTP requests, and no others."""
    firewall, agent, other = site.firewall, site.agent, "https://wild.test"
    removed: tuple[object, ...] = ("pub.test", {"dst": "pub.test", "proto": "http"})
    urls = ("https://pub.test", "http://pub.test")
    stays = firewall.agent(site.peers, "get", f"{other}/bytes?seconds=15&rate=100000", "--timeout", "1m")
    long = "/bytes?seconds=60&rate=100000"
    going = [firewall.agent(site.peers, "get", f"{url}{long}", "--timeout", "2m") for url in urls]
    assert all(agent.get(f"{url}/").ok for url in urls)
    firewall.write(*(each for each in RULES if each not in removed), otel=TELEMETRY)
    firewall.call("reload").expect()
    for url in urls:
        site.witnesses.refused(lambda: agent.get(f"{url}/"), agent, other)  # noqa: B023 - asked at once
    assert not any(each.finish().last["ok"] for each in going)
    assert stays.finish().last["ok"]
    firewall.write(*RULES, otel=TELEMETRY)
    firewall.call("reload").expect()
    assert all(agent.get(f"{url}/").ok for url in urls)
