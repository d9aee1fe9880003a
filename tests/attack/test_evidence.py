"""Records of a flood of refusals, and the cost of many parallel requests for a neighbour, on a real engine."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import product
from operator import add
from typing import Any

import pytest
from docker import APIClient

from clawker_fw.rules.own_page import PAGE
from devkit.attacks.requests import at_once, head, pseudo
from devkit.firewall import RULES, Firewall, brought_up
from devkit.peers import Peer, Peers
from devkit.waiting import until

CONNECTIONS, REQUESTS = 200, 100
QUESTIONS = 10_000
ARRIVING = 0.9
"""The share of datagrams that arrive when all are sent at once (a few percent are lost)."""

TOLD_WITHIN = 10.0
"""Seconds until refusals are on record or counted without further queries. Counts are written every second."""


@pytest.fixture(scope="module")
def firewall(host: str, docker: APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewall]:
    """A stack with room for few connections, some of which one agent may have."""
    few = {"resources": {"envoy": {"connections": CONNECTIONS}}, "limits": {"connections": 20}}
    with brought_up(host, docker, tmp_path_factory.mktemp("evidence"), *RULES, **few) as firewall:
        yield firewall


@pytest.fixture(scope="module")
def peers(docker: APIClient, firewall: Firewall) -> Iterator[Peers]:
    started = Peers(docker)
    firewall.origin(started, ["a.test", "h.test"])
    yield started
    started.remove_all()


@pytest.fixture
def agent(firewall: Firewall, peers: Peers) -> Iterator[Peer]:
    made = firewall.agent(peers)
    yield made
    made.remove()


def test_many_requests_on_each_connection(firewall: Firewall, peers: Peers, agent: Peer) -> None:
    """A hundred unread HTTP/2 downloads on each connection cost no neighbour a request."""
    neighbour = firewall.agent(peers)
    content = at_once([pseudo("h.test", "/bytes?size=1e9")] * REQUESTS, complete=True)
    envoy = firewall.status()["siblings"][0]["address"]
    siege = ("siege", f"{envoy}:80", "--count", "15", "--seconds", "4", "--unread", "--hex", content.hex())
    wanted = ("https://a.test/", "http://h.test/")
    with ThreadPoolExecutor() as pool:
        attacking = pool.submit(agent.ask, *siege)
        until(lambda: agent.get("https://a.test/").ok)
        assert all(neighbour.get(url).ok for url in wanted * 3)
        assert attacking.result().last["peak"] == 15
    neighbour.remove()


_OF_THE_PAGE = f"Host: {PAGE}"


_STALLED: Mapping[str, tuple[bytes, tuple[str, ...]]] = {
    "no body": (head("POST / HTTP/1.1", _OF_THE_PAGE, "Content-Length: 100"), ()),
    "a slow body": (head("GET / HTTP/1.1", _OF_THE_PAGE, "Content-Length: 100") + b"x", ("--drip", "100ms")),
    "half a chunk": (head("GET / HTTP/1.1", _OF_THE_PAGE, "Transfer-Encoding: chunked") + b"5\r\n", ()),
    "an open stream": (at_once([pseudo(PAGE, method="POST")], complete=False), ()),
    "a slow second request": (head("GET / HTTP/1.1", _OF_THE_PAGE), ("--drip", "100ms")),
    "unread answers": (head("GET / HTTP/1.1", _OF_THE_PAGE) * 200, ("--unread",)),
}


def test_stalled_requests_for_the_page(firewall: Firewall, peers: Peers) -> None:
    """The maximum number of requests for agents' pages, stalled in different ways, blocks no neighbour's page."""
    neighbour, *agents = (firewall.agent(peers) for _ in range(1 + len(_STALLED)))
    envoy = firewall.status()["siblings"][0]["address"]
    siege = ("siege", f"{envoy}:80", "--count", "19", "--seconds", "6", "--hex")
    with ThreadPoolExecutor(len(agents)) as pool:
        attacking = {
            way: pool.submit(agent.ask, *siege, sent.hex(), *options)
            for agent, (way, (sent, options)) in zip(agents, _STALLED.items(), strict=True)
        }
        for agent in agents:
            until(partial(_served, agent))
        for _ in range(10):
            assert neighbour.get(f"http://{PAGE}/").ok
        for way, attack in attacking.items():
            assert attack.result().last["opened"] >= 19, way
    for each in (neighbour, *agents):
        each.remove()


def _served(agent: Peer) -> bool:
    return agent.get("https://a.test/").ok


def test_a_flood_of_questions_is_told_of(firewall: Firewall, agent: Peer) -> None:
    """Of ten thousand simultaneous queries, dropped ones are counted for the agent that sent them."""
    resolver, before = firewall.status()["agent"]["dns"], _told(firewall, agent, "flood.test")
    flood = agent.ask("inundate", "flood.test", "--server", resolver, "--count", str(QUESTIONS)).last
    assert flood["answers"] < flood["sent"] == QUESTIONS
    until(lambda: _told(firewall, agent, "flood.test") >= before + QUESTIONS * ARRIVING, TOLD_WITHIN)
    assert _told(firewall, agent, "flood.test") <= before + QUESTIONS


def test_a_flood_on_kept_connections_hides_no_other_refusal(firewall: Firewall, peers: Peers) -> None:
    """While two agents send all the refused requests that they can, those of others are on record one by one."""
    agents, neighbours = ([firewall.agent(peers) for _ in range(count)] for count in (2, 5))
    envoy = firewall.status()["siblings"][0]["address"]
    kept = ("--connect", f"{envoy}:80", "--kept", "--clients", "16", "--seconds", "0")
    before = [_told(firewall, agent, "kept.test") for agent in agents]
    with ExitStack() as stack:
        ends = [stack.enter_context(agent.asking("drive", "http://kept.test/", *kept)) for agent in agents]
        until(lambda: all(_written(_denials(firewall, agent)).get("kept.test") for agent in agents))
        for number, neighbour in product(range(20), neighbours):
            assert neighbour.get(f"http://near-{number}.test/", "--connect", f"{envoy}:80").last["status"] == 403
        sent = [end().last["sent"] for end in ends]
    names = {f"near-{number}.test" for number in range(20)}
    for neighbour in neighbours:
        until(partial(_wrote, firewall, neighbour, names), TOLD_WITHIN)
    for agent, count in zip(agents, map(add, before, sent), strict=True):
        until(partial(_tells, firewall, agent, "kept.test", count), TOLD_WITHIN)
    for each in (*agents, *neighbours):
        each.remove()


def _told(firewall: Firewall, agent: Peer, name: str) -> int:
    """Return how many refusals of an agent `denials` reports: those of a name, and those only counted."""
    answer = _denials(firewall, agent)
    counted: int = sum(each["times"] for each in answer["suppressed"])
    return _written(answer).get(name, 0) + counted


def _tells(firewall: Firewall, agent: Peer, name: str, count: int) -> bool:
    return _told(firewall, agent, name) == count


def _wrote(firewall: Firewall, agent: Peer, names: set[str]) -> bool:
    return names <= _written(_denials(firewall, agent)).keys()


def _written(answer: Mapping[str, Any]) -> dict[str, int]:
    """Return the refusals that `denials` has written down, by name."""
    return {each["name"]: each["times"] for each in answer["denials"]}


def _denials(firewall: Firewall, agent: Peer) -> dict[str, Any]:
    address = agent.address(f"{firewall.project}-net")
    answer: dict[str, Any] = firewall.call("denials", "--format", "json", "--agent", address).expect().json
    return answer
