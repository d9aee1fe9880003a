"""An origin that never answers a request: the agent gets a 503, and it is on record."""

import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

import pytest

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import WRITTEN_WITHIN, program
from devkit.inspecting import PORT, Inspecting, certificate
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.raw_origin import Behaviour, RawOrigin
from devkit.waiting import until

HTTP, HTTPS = 80, PORT
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOSTS = ("reset.there.test", "once.there.test", "posted.there.test", "silent.there.test", "kept.there.test")


def _reset(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _answer_once(connection: socket.socket) -> None:
    """Answer the first request, and close the connection at the second one."""
    connection.recv(4096)
    connection.sendall(OK)
    connection.recv(4096)


def _be_silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def _keep(seconds: float, connection: socket.socket) -> None:
    """Answer every request, and close the connection when idle for a while."""
    connection.settimeout(seconds)
    while connection.recv(4096):
        connection.sendall(OK)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Inspecting]:
    folder = tmp_path_factory.mktemp("unanswered")
    own = certificate(folder / "own", "*.there.test")
    with (
        NameServer(HOSTS, OWN_LOOPBACK) as names,
        Inspecting(folder, program(release), names.port, own, own[0]) as started,
    ):
        started.ports |= {HTTP: free_port()}
        rule = {"dst": ".there.test", "port": HTTPS, "inspect": True}
        started.apply({"dst": ".there.test", "port": HTTP, "proto": "http"}, rule)
        yield started


def _origin(proxy: Inspecting, port: int, does: Behaviour) -> RawOrigin:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(proxy.folder / "own/cert.pem", proxy.folder / "own/key.pem")

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            does(encrypted)

    return RawOrigin(port, serve if port == HTTPS else does)


def _agent(
    proxy: Inspecting, port: int, host: str, source: str = "127.0.0.1"
) -> AbstractContextManager[socket.socket]:
    """Return an agent's connection to the proxy."""
    if port == HTTPS:
        return proxy.connected(host, source=source)
    return socket.create_connection(("127.0.0.1", proxy.ports[port]), 5, (source, 0))


def _require_next(proxy: Inspecting) -> None:
    with _agent(proxy, HTTP, "next.test") as agent:
        assert _asks(agent, "next.test") == b"403"
    (found,) = until(proxy.records, WRITTEN_WITHIN)
    assert found["name"] == "next.test"


def _asks(agent: socket.socket, host: str, method: str = "GET") -> bytes:
    """Return the status of the answer to a request, empty if there was none."""
    content = "Content-Length: 1\r\n\r\nx" if method in {"POST", "PUT"} else "\r\n"
    agent.sendall(f"{method} /path HTTP/1.1\r\nHost: {host}\r\n{content}".encode())
    return agent.recv(4096)[9:12]


def _answered(agent: socket.socket, host: str, method: str) -> int:
    """Return how many requests were answered before the first unanswered one."""
    statuses = list(iter(partial(_asks, agent, host, method), b"503"))
    assert set(statuses) <= {b"200"}
    return len(statuses)


@pytest.mark.parametrize("port", [HTTP, HTTPS])
@pytest.mark.parametrize(
    ("host", "method", "opened"),
    [
        ("reset.there.test", "GET", [2]),
        ("reset.there.test", "POST", [1]),
        ("reset.there.test", "PUT", [1]),
        ("posted.there.test", "POST", range(1, 100)),  # Envoy may keep two connections for each attempt
        ("once.there.test", "GET", range(3, 100)),
    ],
)
def test_a_request_without_an_answer_is_on_record(
    proxy: Inspecting, port: int, host: str, method: str, opened: Sequence[int]
) -> None:
    """One line says whose request it was, and that its host did not answer, however often it was sent."""
    proxy.records()
    does = _reset if host == "reset.there.test" else _answer_once
    with _origin(proxy, port, does) as origin, _agent(proxy, port, host) as agent:
        source = "{}:{}".format(*agent.getsockname())
        answered = _answered(agent, host, method)
        assert origin.opened in opened
        assert answered == (origin.opened if does is _answer_once else 0)
        (found,) = until(proxy.records, WRITTEN_WITHIN)
    name = found["name"].partition(":")[0]
    assert (found["reason"], name, found["source"]) == (Reason.UNREACHABLE, host, source)
    _require_next(proxy)


@pytest.mark.parametrize("port", [HTTP, HTTPS])
def test_a_request_that_its_agent_gives_up_is_not_on_record(proxy: Inspecting, port: int) -> None:
    """An agent that closes the connection before an answer was refused nothing."""
    proxy.records()
    with _origin(proxy, port, _be_silent) as origin:
        with _agent(proxy, port, "silent.there.test") as agent:
            agent.sendall(b"GET / HTTP/1.1\r\nHost: silent.there.test\r\n\r\n")
            until(lambda: origin.opened == 1)
        until(lambda: origin.open == 0)
        _require_next(proxy)


@pytest.mark.parametrize(("port", "seconds"), [(HTTP, 1), (HTTPS, 1), (HTTP, 5)])
def test_origins_that_end_kept_connections(proxy: Inspecting, port: int, seconds: int) -> None:
    """No request fails on a connection that its origin is just closing: Apache and Node do after five seconds."""
    host = "kept.there.test"

    def ask(number: int) -> list[bytes]:
        with _agent(proxy, port, host, f"127.0.1.{number}") as agent:
            statuses = [_asks(agent, host)]
            for _ in range(5 // seconds):
                time.sleep(seconds + (number - 30) / 1000)
                statuses.append(_asks(agent, host))
            return statuses

    with _origin(proxy, port, partial(_keep, seconds)), ThreadPoolExecutor(60) as agents:
        statuses = Counter(status for answers in agents.map(ask, range(60)) for status in answers)
    assert statuses.keys() == {b"200"}, statuses
