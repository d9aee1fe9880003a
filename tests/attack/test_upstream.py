"""Connections to origins are limited by agents' own connections, so that others never run short."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.release import Release
from devkit.attacks.requests import at_once, pseudo
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.hellos import client_hello
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.raw_origin import Behaviour, RawOrigin
from devkit.waiting import until

TLS, HTTP, TCP = 8080, 80, 2222
CONNECTIONS, REQUESTS = 54, 100
NAMES = ("t.test", *(f"{kind}{number}.there.test" for kind in "hn" for number in range(REQUESTS)))
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Resolving]:
    """A proxy with a rule for each kind of listener, all with names on loopback."""
    folder = tmp_path_factory.mktemp("upstream")
    with NameServer(NAMES, OWN_LOOPBACK) as names, Resolving(folder, program(release), names.port) as started:
        started.ports |= {TLS: free_port(), HTTP: free_port()}
        started.apply(
            {"dst": ".there.test", "port": TLS},
            {"dst": ".there.test", "port": HTTP, "proto": "http"},
            {"dst": "t.test", "port": TCP, "proto": "tcp"},
        )
        yield started


def _answering(answer: bytes) -> Behaviour:
    """Return a server that keeps every connection, and answers all but POST requests at once."""

    def serve(connection: socket.socket) -> None:
        while received := connection.recv(65536):
            if not received.startswith(b"POST"):
                connection.sendall(answer)

    return serve


def test_requests_at_once_on_one_connection(proxy: Resolving) -> None:
    """HTTP/2 requests use no more connections to origins than the agent has; other agents' requests go on."""
    unfinished = at_once((pseudo(f"h{at}.there.test", method="POST") for at in range(REQUESTS)), complete=False)
    with (
        RawOrigin(HTTP, _answering(ANSWER)) as origin,
        RawOrigin(TLS, _answering(b"ok")) as other,
        ExitStack() as stack,
    ):
        for _ in range(CONNECTIONS):
            agent = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.ports[HTTP]), timeout=5))
            agent.sendall(unfinished)
        until(lambda: origin.open >= CONNECTIONS)
        for at in range(3):
            assert proxy.hello(f"n{at}.there.test".encode(), TLS) == b"ok"
            assert proxy.request(f"n{at}.there.test".encode(), HTTP) == b"HTTP/1.1 200 OK"
        assert origin.open <= CONNECTIONS + 3
        assert other.opened == 3
        assert _statistic(proxy, "http.http.downstream_rq_active") <= CONNECTIONS


def test_a_connection_to_an_origin_is_not_kept_for_long(proxy: Resolving) -> None:
    """Requests to many hosts leave no idle connections that count, even before origins would close them."""
    with (
        RawOrigin(HTTP, _answering(ANSWER)) as origin,
        socket.create_connection(("127.0.0.1", proxy.ports[HTTP]), timeout=5) as agent,
    ):
        for number in (*range(100), 99):
            agent.sendall(f"GET / HTTP/1.1\r\nHost: h{number}.there.test\r\n\r\n".encode())
            assert agent.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert origin.opened <= 101
        until(lambda: origin.open == 0, bounds.REUSE_SECONDS + 2)  # the quickest origins close it soon after


def test_every_connection_is_watched(proxy: Resolving) -> None:
    """The kernel probes a silent agent's connection every 20 s, at every listener."""
    places = {
        ("127.0.0.1", proxy.ports[TLS]): client_hello(b"n0.there.test"),
        ("127.0.0.1", proxy.ports[HTTP]): b"GET / HTTP/1.1\r\nHost: n0.there.test\r\n\r\n",
        (str(proxy.virtual["t.test"]), TCP): b"",
    }
    with ExitStack() as stack:
        for each in (TLS, HTTP, TCP):
            stack.enter_context(RawOrigin(each, _answering(b"")))
        for place, content in places.items():
            agent = stack.enter_context(socket.create_connection(place, timeout=5))
            agent.sendall(content)
            port = agent.getsockname()[1]
            until(partial(_is_watched, port))


def _is_watched(port: int) -> bool:
    return 0 < _asks_within(port) <= 20


def _asks_within(port: int) -> float:
    """Return after how many seconds the kernel sends a keepalive to the peer with this port; 0 for never."""
    keepalive, hundredths = "02", 100
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, _, _, timer, *_ = line.split()
        kind, _, left = timer.partition(":")
        if remote.endswith(f":{port:04X}") and kind == keepalive:
            return int(left, 16) / hundredths
    return 0


def _statistic(proxy: Resolving, name: str) -> int:
    return int(proxy.admin(f"/stats?filter=^{name}$").rpartition(b":")[2])
