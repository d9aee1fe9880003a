"""How often names are looked up, and for how long: the judge is the log of the name server that is asked."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.hellos import client_hello
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.stacks import rule_set
from devkit.waiting import until

THERE, GONE = b"a.there.test", b"x.gone.test"
SLOW = b"slow.there.test"
NEAR = b"a.near.test"
"""Below another rule than the silent ones."""

SLOW_SECONDS = 2.5
OF_A_RULE, QUERIES = 12, 3
"""Lookups of one agent below one rule at once, and queries of each (`go/internal/lookups`)."""

NEW_AT_ONCE, NEW_IN_A_SECOND = 200, 25
"""New names of one agent."""

STOPPED_SECONDS = 5.0
"""Within so many seconds after an attack, its last lookup begins."""

_NAMES = 500

_SILENCE_SECONDS = 4.0
"""For how long Docker's resolver waits for an answer of the name server that it asks."""


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server with a few names, and a subtree for which it says nothing."""
    below = [f"{name}.there.test" for name in "bcd"]
    there = (*below, "named.test", *(name.decode() for name in (THERE, SLOW, NEAR)))
    with NameServer(there, OWN_LOOPBACK, silent="silent.test", slow={SLOW: SLOW_SECONDS}) as server:
        yield server


@pytest.fixture
def proxy(tmp_path: Path, release: Release, names: NameServer) -> Iterator[Resolving]:
    """A proxy that asks it, with rules for what is below two names."""
    with Resolving(tmp_path, program(release), names.port) as started:
        started.ports[8080] = free_port()
        started.obey(_rules())
        yield started


@pytest.fixture
def crowded(proxy: Resolving) -> Resolving:
    """The proxy, with rules for both protocols, for what is below three names and for a name itself."""
    proxy.ports[8081] = free_port()
    below = [{"dst": dst} for dst in (".there.test", ".silent.test", ".near.test", "named.test")]
    tls = [{**rule, "port": 8080} for rule in below]
    proxy.apply(*tls, *({**rule, "proto": "http", "port": 8081} for rule in below))
    return proxy


def _rules() -> RuleSet:
    return rule_set({"dst": ".there.test", "port": 8080}, {"dst": ".gone.test", "port": 8080})[1]


def test_a_name_that_does_not_exist_is_asked_once_a_second(proxy: Resolving, names: NameServer) -> None:
    """However often an agent asks for it; and it is asked again, so that it is found once it exists."""
    started = time.monotonic()
    requests = 0
    while time.monotonic() < started + 2.5:
        assert proxy.hello(GONE, 8080) == b""
        requests += 1
    asked = names.asked.count(tuple(GONE.split(b".")))
    assert requests > 20 > 1 + time.monotonic() - started + 1 >= asked >= 2


def test_lookups_end_with_their_use(proxy: Resolving, names: NameServer) -> None:
    """Names that nobody uses any more are not looked up, whether a rule is for them or not."""
    with socket.create_server((OWN_LOOPBACK, 8080)) as origin:
        assert _passes(proxy, origin)
        for number in range(50):
            assert proxy.hello(b"%d.gone.test" % number, 8080) == b""
        assert len(set(names.asked)) == 51
        proxy.serve(RuleSet())
        until(lambda: _hosts(proxy) == 0)
        names.asked.clear()
        with pytest.raises(TimeoutError):
            until(lambda: bool(names.asked), 3)
        proxy.obey(_rules())
        assert _passes(proxy, origin)  # the control: it is asked for, and found, again
        assert set(names.asked) == {tuple(THERE.split(b"."))}


def test_a_name_of_a_rule_is_not_forgotten_in_a_pause(crowded: Resolving, names: NameServer) -> None:
    """A request fails at the moment at which Envoy forgets its name. A name below a subtree is the control."""
    names.ttl = 1
    for name in (b"named.test", NEAR):
        crowded.hello(name, 8080)
    assert _hosts(crowded) == 2
    until(lambda: _hosts(crowded) == 1)
    with pytest.raises(TimeoutError):
        until(lambda: _hosts(crowded) != 1, 3)


class Crowd:
    """An agent that asks over both protocols for one new name after the other, of a server that never answers."""

    def __init__(self, proxy: Resolving, source: str) -> None:
        self._places: Mapping[int, Callable[[bytes], bytes]] = {
            proxy.ports[8080]: client_hello,
            proxy.ports[8081]: _request,
        }
        self._source = source
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with ExitStack() as stack:
            for number in range(_NAMES):
                if self._ended.wait(0.002):
                    break
                for port, message in self._places.items():
                    agent = socket.create_connection(("127.0.0.1", port), source_address=(self._source, 0))
                    stack.enter_context(agent)
                    agent.sendall(message(b"x%d.silent.test" % number))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_one_agent_s_lookups_are_in_nobody_else_s_way(crowded: Resolving, names: NameServer) -> None:
    """While one has many waiting, others get new names, and it gets those below other rules."""
    with socket.create_server((OWN_LOOPBACK, 8080)) as tls, socket.create_server((OWN_LOOPBACK, 8081)) as http:
        with Crowd(crowded, "127.0.0.14"):
            until(lambda: len(_silent(names)) == OF_A_RULE)
            until(lambda: _waiting(crowded) > 10 * OF_A_RULE)
            with _waits(crowded, "127.0.0.13", client_hello(b"other.silent.test")):
                until(lambda: (b"other", b"silent", b"test") in names.asked, 10)  # not after all of the other one
            assert _arrives(crowded, tls, "127.0.0.13", client_hello(b"b.there.test"))
            assert _arrives(crowded, http, "127.0.0.13", _request(b"c.there.test"))
            assert _arrives(crowded, tls, "127.0.0.14", client_hello(b"named.test"))
            assert _arrives(crowded, tls, "127.0.0.14", client_hello(NEAR))
        until(lambda: _arrives(crowded, tls, "127.0.0.14", client_hello(b"d.there.test")), 10)


@pytest.mark.parametrize("exact", [False, True])
def test_new_names_of_one_agent_are_bounded(proxy: Resolving, names: NameServer, *, exact: bool) -> None:
    """One agent gets only so many new names. A neighbour gets its own at once, below the same rule too."""
    many = [f"x{number}.there.test" for number in range(2 * NEW_AT_ONCE)]
    for name in many:
        names.move(name, OWN_LOOPBACK)
    proxy.apply(*({"dst": dst, "port": 8080} for dst in ("named.test", *(many if exact else [".there.test"]))))
    begun = time.monotonic()
    with ExitStack() as stack:
        for name in many[:-1]:
            stack.enter_context(_waits(proxy, "127.0.0.14", client_hello(name.encode())))
        until(lambda: len(names.asked) > NEW_AT_ONCE)
        bound = NEW_AT_ONCE + NEW_IN_A_SECOND * (time.monotonic() - begun) + 1
        assert len(names.asked) <= bound
        with _waits(proxy, "127.0.0.13", client_hello(many[-1].encode())):
            until(lambda: tuple(many[-1].encode().split(b".")) in names.asked, 1)


def test_a_slow_answer_is_waited_for(proxy: Resolving) -> None:
    """However quick all answers before it were: c-ares waits five times as long as they took, at least 250 ms."""
    with socket.create_server((OWN_LOOPBACK, 8080)) as origin:
        for number in range(20):
            assert proxy.hello(b"%d.gone.test" % number, 8080) == b""
        begun = time.monotonic()
        assert _arrives(proxy, origin, "127.0.0.1", client_hello(SLOW), within=10)
        assert time.monotonic() - begun > SLOW_SECONDS


def test_lookups_without_an_answer_are_bounded(crowded: Resolving, names: NameServer) -> None:
    """Those that wait for a name server take no more of the engine's resolver, however many are begun.

    They end soon after the attack.
    """
    with Crowd(crowded, "127.0.0.11"):
        time.sleep(_SILENCE_SECONDS)
    assert 0 < len(_silent(names)) <= OF_A_RULE
    assert max(_silent(names).values()) <= QUERIES
    time.sleep(STOPPED_SECONDS)
    names.asked.clear()
    time.sleep(STOPPED_SECONDS)
    assert not names.asked


def test_a_busy_agent_is_not_refused(crowded: Resolving) -> None:
    """It may begin 200 connections at once to a new name, before its address is known."""
    with ExitStack() as stack, socket.create_server((OWN_LOOPBACK, 8080), backlog=200) as tls:
        for _ in range(200):
            agent = stack.enter_context(socket.create_connection(("127.0.0.1", crowded.ports[8080]), timeout=5))
            agent.sendall(client_hello(b"b.there.test"))
        tls.settimeout(10)
        for _ in range(200):
            upstream, _ = tls.accept()
            assert stack.enter_context(upstream).recv(4096)
    assert _lookups(crowded, "dns_rq_pending_overflow") == 0


def test_a_connection_outlives_the_lookup_of_its_name(proxy: Resolving) -> None:
    """Who is connected stays so when the name is forgotten."""
    with (
        socket.create_server((OWN_LOOPBACK, 8080)) as origin,
        socket.create_connection(("127.0.0.1", proxy.ports[8080]), timeout=5) as agent,
    ):
        agent.sendall(client_hello(THERE))
        upstream, _ = origin.accept()
        with upstream:
            assert upstream.recv(4096)
            until(lambda: _hosts(proxy) == 0)
            upstream.sendall(b"still here")
            assert agent.recv(4096) == b"still here"


def test_no_search_domain(tmp_path: Path, release: Release) -> None:
    """What does not exist as it stands does not exist, whatever the machine's resolver would try after it."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\nsearch evil.test\noptions ndots:5\n")
    wrapper = tmp_path / "envoy"
    wrapper.write_text(f'#!/bin/sh\nmount --bind {resolv} /etc/resolv.conf && exec {program(release)} "$@"\n')
    wrapper.chmod(0o755)
    with NameServer() as names:
        before = ("--mount", str(wrapper))
        with Resolving(tmp_path / "proxy", Path("unshare"), names.port, before=before) as proxy:
            proxy.obey(_rules())
            assert proxy.hello(GONE, 8080) == b""
    assert set(names.asked) == {tuple(GONE.split(b"."))}


def _lookups(proxy: Resolving, statistic: str) -> int:
    lines = proxy.admin(f"/stats?filter=dns_cache.*{statistic}$").decode().splitlines()
    return sum(int(line.rpartition(":")[2]) for line in lines)


def _silent(names: NameServer) -> Counter[tuple[bytes, ...]]:
    """Return how often the name server was asked for each name below the one for which it says nothing."""
    return Counter(name for name in names.asked if name[-2:] == (b"silent", b"test"))


def _waiting(proxy: Resolving) -> int:
    """Return how many names Envoy has begun to look up, and has no answer for."""
    return _lookups(proxy, "dns_query_attempt") - sum(
        _lookups(proxy, f"dns_query_{outcome}") for outcome in ("success", "failure", "timeout")
    )


def _request(name: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + name + b"\r\n\r\n"


@contextmanager
def _waits(proxy: Resolving, source: str, message: bytes) -> Iterator[None]:
    with socket.create_connection(("127.0.0.1", proxy.ports[8080]), source_address=(source, 0)) as agent:
        agent.sendall(message)
        yield


def _arrives(proxy: Resolving, origin: socket.socket, source: str, message: bytes, within: float = 5) -> bool:
    """Whether a message of an agent arrives at an origin soon."""
    port = proxy.ports[origin.getsockname()[1]]
    with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0)) as agent:
        agent.sendall(message)
        origin.settimeout(within)
        try:
            upstream, _ = origin.accept()
        except TimeoutError:
            return False
        with upstream:
            upstream.settimeout(2)
            return bool(upstream.recv(4096))


def _passes(proxy: Resolving, origin: socket.socket) -> bool:
    with socket.create_connection(("127.0.0.1", proxy.ports[8080]), timeout=5) as agent:
        agent.sendall(client_hello(THERE))
        upstream, _ = origin.accept()
        with upstream:
            return upstream.recv(4096) == client_hello(THERE)


def _hosts(proxy: Resolving) -> int:
    return _lookups(proxy, "num_hosts")
