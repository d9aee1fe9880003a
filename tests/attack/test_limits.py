"""Resource limits of one agent, on a real engine: only the agent beyond its limit is refused."""

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.envoy import bounds
from devkit.attacks.requests import head
from devkit.firewall import Firewall, brought_up
from devkit.floor import lock
from devkit.peers import KEEPALIVE, Peer, Peers
from devkit.processes import processes
from devkit.waiting import until

LIMITS = {
    "connections": 8,
    "connections_per_second": 1000,
    "datagrams_per_second": 100,
    "queries_per_second": 20,
    "resolver_connections": 4,
}
RULES = (
    {"dst": "a.test", "allow_private": True},
    {"dst": "h.test", "proto": "http", "allow_private": True},
    {"dst": "u.test", "proto": "udp", "port": 5300, "allow_private": True},
)
PACE = 0.3
"""Seconds between two requests of an agent; more frequent ones would be over the limit."""

HELD = ("--seconds", "3600", "--pause", "1h")
"""Connections are held until the test has looked at everything."""

NOBODY = "65532"
"""The user id that programs have in many images."""

MOST_WATCHES, WATCHES = Path("/proc/sys/fs/epoll/max_user_watches"), 50_000
"""The kernel's epoll watches for each user, and a number that only this test needs."""

UNSERVED = {
    ("envoy", "live", "answer", "tamper", "replace"),
    ("envoy", "live", "agents_see", "tamper", "replace"),
    ("envoy", "state", "health", "tamper", "replace"),
}
"""Findings about an Envoy without watches, depending on which of its threads gets released ones."""

MOST = 20
"""More connections than the resolver's limit: some replace others that CoreDNS has closed."""

LONG_MESSAGE = ("--hex", "ffff00", "--unread")
"""The beginning of a query over TCP that announces 64 KiB (RFC 1035, section 4.2.2), with one byte of it."""


@pytest.fixture(scope="module")
def firewall(host: str, docker: APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewall]:
    with brought_up(host, docker, tmp_path_factory.mktemp("limits"), *RULES, limits=LIMITS) as firewall:
        yield firewall


@pytest.fixture(scope="module")
def peers(docker: APIClient, firewall: Firewall) -> Iterator[Peers]:
    """Agents, and an origin for each protocol."""
    started = Peers(docker)
    firewall.origin(started, ["a.test", "h.test"])
    answering = ("dns", "--listen", "0.0.0.0:5300", "--zone", "u.test=192.0.2.1")
    started.start(*answering, network=f"{firewall.project}-egress", aliases=["u.test"])
    yield started
    started.remove_all()


@pytest.fixture(scope="module")
def neighbour(firewall: Firewall, peers: Peers) -> Peer:
    """An agent that only does what it may."""
    return firewall.agent(peers)


@pytest.fixture
def agent(firewall: Firewall, peers: Peers) -> Iterator[Peer]:
    """The agent that uses up what it can."""
    made = firewall.agent(peers)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def service(firewall: Firewall) -> str:
    """The resolver's address, to bypass the engine's own resolver."""
    return str(firewall.status()["agent"]["dns"])


def _starts(docker: APIClient, firewall: Firewall) -> list[str]:
    return [
        docker.inspect_container(firewall.container(each))["State"]["StartedAt"] for each in ("envoy", "coredns")
    ]


def _limited(firewall: Firewall, sibling: int, agent: Peer) -> dict[str, Any]:
    """Return an agent's connections beyond a container's limit in `status`; no other agent may have any."""
    found = [each for each in firewall.status()["siblings"][sibling]["limited"] if each["connections"]]
    assert [each["address"] for each in found] in ([], [agent.address(f"{firewall.project}-net")])
    return found[0] if found else {"connections": 0}


def _refused(docker: APIClient, firewall: Firewall, agent: str, place: str) -> list[dict[str, Any]]:
    """Return Envoy's records of an agent's connections beyond a limit, to this address."""
    lines = docker.logs(firewall.container("envoy")).decode().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    mine = [each for each in records if each["source"].startswith(f"{agent}:")]
    return [each for each in mine if (each.get("address"), each["reason"]) == (place, Reason.LIMIT)]


def test_downloads_that_are_read_fast_and_then_no_longer(
    docker: APIClient, firewall: Firewall, agent: Peer
) -> None:
    """The kernel has grown their buffers, and keeps no more of them than the number of connections allows for."""
    envoy = firewall.status()["siblings"][0]["address"]
    content = head("GET /bytes?size=1e9 HTTP/1.1", "Host: h.test").hex()
    stopping = ("--unread", "--first", "50000000", "--seconds", "3600")
    count = LIMITS["connections"]
    with agent.asking("siege", f"{envoy}:80", "--count", str(count), "--hex", content, *stopping):
        kept = [0]

        def stuck() -> bool:
            kept.append(_kept(docker, firewall))
            return kept[-1] == kept[-2] > count * bounds.SOCKETS // 4

        until(stuck, 60, every=0.5)
        assert kept[-1] <= count * bounds.SOCKETS


def _kept(docker: APIClient, firewall: Firewall) -> int:
    """Return how many bytes the kernel keeps of connections in Envoy's container (ss(8))."""
    process = next(processes(docker, firewall.container("envoy")))
    listing = ["nsenter", f"--net={process}/ns/net", "ss", "--tcp", "--numeric", "--memory"]
    listed = subprocess.run(listing, capture_output=True, check=True, text=True).stdout
    kept = re.findall(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+)", listed)
    return sum(int(number) for numbers in kept for number in numbers)


def test_connections(docker: APIClient, firewall: Firewall, peers: Peers, agent: Peer, neighbour: Peer) -> None:
    """The newest connection of an agent with too many is refused at once; its older one and other agents go on."""
    envoy = firewall.status()["siblings"][0]["address"]
    older = firewall.agent(peers, *KEEPALIVE, "http://h.test/", "--seconds", "0")
    until(older.said)
    with older.asking("siege", f"{envoy}:443", "--count", "20", *HELD) as ended:
        until(lambda: _limited(firewall, 0, older)["connections"] > 20 - LIMITS["connections"], every=PACE)
        assert older.get("https://a.test/").kind == "connect-refused"
        assert neighbour.get("https://a.test/").ok
        assert neighbour.get("http://h.test/").ok
        held = ended().last
    assert held["opened"] == LIMITS["connections"] - 1
    assert held["ended"] == 0
    assert held["errors"] == {"connect-refused": 20 - held["opened"]}
    until(lambda: older.get("https://a.test/").ok, every=PACE)  # there is room again
    limited = _limited(firewall, 0, older)
    assert limited["queries"] == 0
    assert limited["agent"]
    assert limited["connections"] >= 20 - held["opened"]
    assert len(_refused(docker, firewall, limited["address"], envoy)) >= 20 - held["opened"]
    kept = older.stop().last
    assert (kept["failed"], kept["connections"]) == (0, 1)
    assert agent.get("https://a.test/").ok


def test_resolver_connections(
    docker: APIClient, firewall: Firewall, service: str, agent: Peer, neighbour: Peer
) -> None:
    """Beyond a few, connections that announce a long message are refused; CoreDNS keeps serving others."""
    over_tcp = ("resolve", "a.test", "--server", service, "--tcp")
    before = _starts(docker, firewall)
    with agent.asking("siege", f"{service}:53", "--count", "300", *LONG_MESSAGE, *HELD) as ended:
        until(lambda: _limited(firewall, 1, agent)["connections"] > 300 - MOST, every=PACE)
        assert agent.ask(*over_tcp).kind == "connect-refused"
        assert neighbour.ask(*over_tcp).ok
        assert agent.ask("resolve", "a.test").ok  # over UDP, it is still answered
        held = ended().last
    assert held["opened"] >= LIMITS["resolver_connections"]
    assert held["errors"] == {"connect-refused": 300 - held["opened"]}
    assert held["opened"] < MOST
    assert _starts(docker, firewall) == before
    until(lambda: agent.ask(*over_tcp).ok, every=PACE)


def test_queries(service: str, agent: Peer, neighbour: Peer) -> None:
    """Queries beyond an agent's rate are not answered; another agent's are."""
    flood = agent.ask("inundate", "a.test", "--server", service, "--count", "2000").last
    assert flood["sent"] == 2000
    assert LIMITS["queries_per_second"] * 2 // 5 <= flood["answers"] < 100
    slowly = ("--count", "10", "--pause", "100ms")
    assert neighbour.ask("inundate", "a.test", "--server", service, *slowly).last["answers"] == 10
    until(lambda: agent.ask("resolve", "a.test").ok, every=PACE)


def test_datagrams(firewall: Firewall, agent: Peer, neighbour: Peer) -> None:
    """Datagrams beyond an agent's rate are counted and unanswered; another agent's are answered."""
    place = f"{agent.ask('resolve', 'u.test').last['answers'][0]}:5300"
    until(lambda: neighbour.ask("resolve", "u.test", "--timeout", "1s", "--server", place).ok, 15, every=PACE)
    with ThreadPoolExecutor() as pool:
        flooding = pool.submit(agent.ask, "inundate", "u.test", "--server", place, "--seconds", "2")
        meanwhile = neighbour.ask("inundate", "u.test", "--server", place, "--count", "30", "--pause", "50ms")
        flood = flooding.result().last
    assert meanwhile.last["answers"] == 30
    assert 10 <= flood["answers"] <= 4 * LIMITS["datagrams_per_second"] < flood["sent"]
    (limited,) = (each for each in firewall.status()["siblings"][0]["limited"] if each["datagrams"])
    assert limited["address"] == agent.address(f"{firewall.project}-net")
    assert limited["datagrams"] > flood["sent"] / 2


def _times_refused(firewall: Firewall, address: str) -> int:
    """Return how many refusals of an agent `denials` shows, on record or only counted."""
    answer = firewall.call("denials", "--format", "json").expect().json
    return sum(each["times"] for each in (*answer["denials"], *answer["suppressed"]) if each["address"] == address)


def test_datagrams_to_a_closed_port(firewall: Firewall, agent: Peer, service: str) -> None:
    """Each is on record or counted for its agent, although by default the kernel answers about one a second."""
    address = agent.address(f"{firewall.project}-net")
    before = _times_refused(firewall, address)
    sent = agent.ask("inundate", "a.test", "--server", f"{service}:9", "--count", "400").last["sent"]
    assert sent >= 100, "a refusal in between keeps the agent's kernel from sending"
    until(lambda: _times_refused(firewall, address) - before == sent)


def test_neighbours(docker: APIClient, firewall: Firewall, peers: Peers, agent: Peer) -> None:
    """An agent that contacts every address of its network leaves room for newcomers in the neighbour table."""
    (pool,) = docker.inspect_network(f"{firewall.project}-net")["IPAM"]["Config"]
    with ThreadPoolExecutor() as threads:
        sweeping = threads.submit(agent.ask, "sweep", pool["Subnet"], "--seconds", "5")
        asked = 0
        while not sweeping.done():
            newcomer = firewall.agent(peers)  # no neighbour entries yet
            assert newcomer.get("https://a.test/").ok
            newcomer.remove()
            asked += 1
        swept = sweeping.result().last
    assert asked
    assert swept["failed"] == 0
    assert 400 < swept["neighbours"] <= 510  # it filled the table as far as it could


ENVOY = b"/usr/local/bin/envoy"


def _user(docker: APIClient, envoy: str) -> str:
    found = processes(docker, envoy)
    running = next(each for each in found if (each / "cmdline").read_bytes().startswith(ENVOY))
    return (running / "status").read_text().partition("Uid:")[2].split()[0]


def _served(neighbour: Peer) -> bool:
    return neighbour.get("https://a.test/").ok and neighbour.get("http://h.test/").ok


def test_what_the_kernel_counts_for_a_user(
    docker: APIClient, firewall: Firewall, peers: Peers, agent: Peer, neighbour: Peer
) -> None:
    """An agent with Envoy's user id that takes all its file watches stops neither Envoy nor its next start."""
    envoy, served = firewall.container("envoy"), partial(_served, neighbour)
    assert until(served, every=PACE)
    known = _user(docker, envoy)
    attacker = firewall.agent(peers, "exhaust", known)
    taken = until(attacker.said)[-1]
    assert (taken["taken"] > 0, taken["files"]) == (True, True), taken
    control = agent.ask("exhaust", known, "--for", "1ms").last
    assert (control["taken"], control["files"]) == (0, True), "something is left for that user"

    assert served()
    firewall.drift().expect()
    docker.restart(envoy)
    assert until(served, every=PACE), "Envoy was not started again"
    assert _user(docker, envoy) != known
    firewall.run("--force-recreate")
    assert until(served, every=PACE), "Envoy was not replaced"
    firewall.drift().expect()
    attacker.remove()


@pytest.fixture
def few_watches() -> Iterator[None]:
    """Lower the kernel's limit of epoll watches for each user: at the default, they take 1 GB."""
    with lock(Path("/run/clawker-fw-devkit-watches.lock")):
        before = MOST_WATCHES.read_text()
        MOST_WATCHES.write_text(str(WATCHES))
        try:
            yield
        finally:
            MOST_WATCHES.write_text(before)


@pytest.mark.usefixtures("few_watches")
def test_all_watches_of_a_user(
    docker: APIClient, firewall: Firewall, peers: Peers, agent: Peer, neighbour: Peer
) -> None:
    """Taking all epoll watches stops only an Envoy whose user id the agent knows, and only until a restart."""
    envoy, served = firewall.container("envoy"), partial(_served, neighbour)
    assert until(served, every=PACE)
    known = _user(docker, envoy)
    for user, stops in ((NOBODY, False), (known, True)):
        attacker = firewall.agent(peers, "exhaust", user, "--epoll")
        taken = until(attacker.said)[-1]
        assert WATCHES / 2 < taken["taken"] <= WATCHES, taken
        control = agent.ask("exhaust", user, "--epoll", "--for", "1ms").last
        assert (control["taken"], control["files"]) == (0, True), "something is left for that user"
        assert served() != stops
        findings = firewall.drift().findings
        assert bool(findings) == stops
        assert findings <= UNSERVED
        if stops:
            docker.restart(envoy)
            assert until(served, every=PACE), "Envoy was not started again"
            assert _user(docker, envoy) != known
            assert until(firewall.current)
        attacker.remove()
