"""How often names are looked up, and for how long: the judge is the log of the name server that is asked."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.envoy import bounds, lookups
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, client_hello, program
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.stacks import rule_set
from devkit.waiting import until

THERE, GONE = b"a.there.test", b"x.gone.test"
SLOW = b"slow.there.test"
NEAR = b"a.near.test"
"""Below a rule of another group than the silent ones."""

SLOW_SECONDS = 2.5
STOPPED_SECONDS = 5.0
"""Within so many seconds after an attack, its last lookup begins."""

REPEATED_SECONDS = 15.0
"""For so long, a name server that never answers is asked again."""

_SILENCE_SECONDS = 4.0
"""For how long Docker's resolver waits for an answer of the name server that it asks."""


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server with a few names, and a subtree for which it says nothing."""
    there = (
        THERE.decode(),
        SLOW.decode(),
        "b.there.test",
        "c.there.test",
        "d.there.test",
        "named.test",
        NEAR.decode(),
    )
    with NameServer(there, OWN_LOOPBACK, silent="silent.test", slow={SLOW: SLOW_SECONDS}) as server:
        yield server


@pytest.fixture
def proxy(tmp_path: Path, release: Release, names: NameServer) -> Iterator[Resolving]:
    """A proxy that asks it, with rules for what is below two names."""
    started = Resolving(tmp_path, program(release), names.port)
    started.ports[8080] = free_port()
    started.serve(_rules())
    until(started.serves)
    yield started
    started.process.terminate()
    started.process.wait()


@pytest.fixture
def crowded(proxy: Resolving) -> Resolving:
    """The proxy, with rules for both protocols, for what is below three names and for a name itself."""
    proxy.ports[8081] = free_port()
    below = [{"dst": dst} for dst in (".there.test", ".silent.test", ".near.test", "named.test")]
    tls = [{**rule, "port": 8080} for rule in below]
    proxy.serve(rule_set(*tls, *({**rule, "proto": "http", "port": 8081} for rule in below))[1])
    until(proxy.serves)
    return proxy


def _rules() -> RuleSet:
    return rule_set({"dst": ".there.test", "port": 8080}, {"dst": ".gone.test", "port": 8080})[1]


def test_a_name_that_does_not_exist_is_asked_once_a_second(proxy: Resolving, names: NameServer) -> None:
    """However often an agent asks for it; and it is asked again, so that it is found once it exists."""
    started = time.monotonic()
    requests = 0
    while time.monotonic() < started + 4:
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
        until(lambda: _hosts(proxy) == 0, 8)
        names.asked.clear()
        with pytest.raises(TimeoutError):
            until(lambda: bool(names.asked), 3)
        proxy.serve(_rules())
        until(proxy.serves)
        assert _passes(proxy, origin)  # the control: it is asked for, and found, again
        assert set(names.asked) == {tuple(THERE.split(b"."))}


class Crowd:
    """An agent that asks over both protocols for one new name after the other, of a server that never answers."""

    def __init__(self, proxy: Resolving, source: str) -> None:
        """Begin."""
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
            for number in range(40 * bounds.LOOKUPS):
                if self._ended.wait(0.002):
                    break
                for port, message in self._places.items():
                    agent = socket.create_connection(("127.0.0.1", port), source_address=(self._source, 0))
                    stack.enter_context(agent)
                    agent.sendall(message(b"x%d.silent.test" % number))

    def __enter__(self) -> Self:
        """Go on."""
        return self

    def __exit__(self, *_: object) -> None:
        """End, with all connections."""
        self._ended.set()
        self._thread.join()


def test_one_agent_s_lookups_are_in_nobody_else_s_way(crowded: Resolving) -> None:
    """One that has its share waiting is refused more of it; others get new names, and it gets other rules'."""
    with socket.create_server((OWN_LOOPBACK, 8080)) as tls, socket.create_server((OWN_LOOPBACK, 8081)) as http:
        with Crowd(crowded, "127.0.0.14"):
            until(lambda: _lookups(crowded, "dns_rq_pending_overflow") > bounds.LOOKUPS, 20)
            assert _lookups(crowded, "dns_query_attempt") < 2 * bounds.LOOKUPS
            assert _arrives(crowded, tls, "127.0.0.13", client_hello(b"b.there.test"))
            assert _arrives(crowded, http, "127.0.0.13", _request(b"c.there.test"))
            assert _arrives(crowded, tls, "127.0.0.14", client_hello(b"named.test"))
            assert _arrives(crowded, tls, "127.0.0.14", client_hello(NEAR))
            until(lambda: _lookups(crowded, "rq_pending_open") == 1, 5)
            until(lambda: {("tls", "limit"), ("http", "limit")} <= _told(crowded), 10)
        until(lambda: _arrives(crowded, tls, "127.0.0.14", client_hello(b"d.there.test")), 10)


def test_a_slow_answer_is_waited_for(proxy: Resolving) -> None:
    """However quick all answers before it were: c-ares waits five times as long as they took, at least 250 ms."""
    with socket.create_server((OWN_LOOPBACK, 8080)) as origin:
        for number in range(20):
            assert proxy.hello(b"%d.gone.test" % number, 8080) == b""
        begun = time.monotonic()
        assert _arrives(proxy, origin, "127.0.0.1", client_hello(SLOW), within=5)
        assert time.monotonic() - begun > SLOW_SECONDS


def test_lookups_without_an_answer_do_not_give_way_to_more(crowded: Resolving) -> None:
    """However quick all answers before were: the engine's resolver still waits for what Envoy has given up."""
    for number in range(20):
        assert crowded.hello(b"%d.there.test" % number, 8080) == b""
    before = _lookups(crowded, "dns_query_attempt")
    with Crowd(crowded, "127.0.0.11"):  # whose lookups are in the same cache
        time.sleep(_SILENCE_SECONDS)
        attempts = _lookups(crowded, "dns_query_attempt") - before
    assert bounds.LOOKUPS <= attempts < 2 * bounds.LOOKUPS


def test_lookups_end_soon_after_an_attack(crowded: Resolving, names: NameServer) -> None:
    """No name is new by then; those that never had an answer are asked for a few times more, and no longer."""
    with Crowd(crowded, "127.0.0.16"):
        time.sleep(_SILENCE_SECONDS)
    time.sleep(STOPPED_SECONDS)
    before = names.asked.copy()
    assert len(set(before)) >= bounds.LOOKUPS / 2  # each over both protocols
    names.asked.clear()
    time.sleep(REPEATED_SECONDS - STOPPED_SECONDS)
    assert set(names.asked) <= set(before)
    assert max(Counter(before + names.asked).values()) <= 2 * lookups.TRIES
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
            until(lambda: _hosts(proxy) == 0, 15)
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
        proxy = Resolving(tmp_path / "proxy", Path("unshare"), names.port, before=("--mount", str(wrapper)))
        try:
            proxy.serve(_rules())
            until(proxy.serves)
            assert proxy.hello(GONE, 8080) == b""
        finally:
            proxy.process.terminate()
            proxy.process.wait()
    assert set(names.asked) == {tuple(GONE.split(b"."))}


def _lookups(proxy: Resolving, statistic: str) -> int:
    """Return the sum of a statistic of all caches."""
    lines = proxy.admin(f"/stats?filter=dns_cache.*{statistic}$").decode().splitlines()
    return sum(int(line.rpartition(":")[2]) for line in lines)


def _told(proxy: Resolving) -> set[tuple[str, str]]:
    """Return the protocol and reason of each refusal on record."""
    lines, _, _ = proxy.log.read_text().rpartition("\n")
    return {(each["protocol"], each["reason"]) for each in map(json.loads, lines.splitlines())}


def _request(name: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + name + b"\r\n\r\n"


def _arrives(proxy: Resolving, origin: socket.socket, source: str, message: bytes, within: float = 2) -> bool:
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
    """Whether a connection gets through to the origin."""
    with socket.create_connection(("127.0.0.1", proxy.ports[8080]), timeout=5) as agent:
        agent.sendall(client_hello(THERE))
        upstream, _ = origin.accept()
        with upstream:
            return upstream.recv(4096) == client_hello(THERE)


def _hosts(proxy: Resolving) -> int:
    return _lookups(proxy, "num_hosts")
