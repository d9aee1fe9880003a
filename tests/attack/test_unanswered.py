"""An origin that never answers a request: the agent gets a 503, and it is on record."""

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import WRITTEN_WITHIN, Resolving, program
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.raw_origin import Behaviour, RawOrigin
from devkit.waiting import until

HTTP = 80
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KEPT_SECONDS = 5
"""Seconds that Apache and Node keep an idle connection."""


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


def _keep(connection: socket.socket) -> None:
    """Answer every request, and close the connection when idle for a while."""
    connection.settimeout(KEPT_SECONDS)
    while connection.recv(4096):
        connection.sendall(OK)


ORIGINS: Mapping[str, Behaviour] = {
    "reset.there.test": _reset,
    "once.there.test": _answer_once,
    "silent.there.test": _be_silent,
    "kept.there.test": _keep,
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Resolving]:
    folder = tmp_path_factory.mktemp("unanswered")
    with (
        NameServer(tuple(ORIGINS), OWN_LOOPBACK) as names,
        Resolving(folder, program(release), names.port) as started,
    ):
        started.ports |= {HTTP: free_port()}
        started.apply({"dst": ".there.test", "port": HTTP, "proto": "http"})
        yield started


@pytest.fixture
def origin() -> Iterator[RawOrigin]:
    with RawOrigin(HTTP, _reset) as started:
        yield started


@pytest.fixture
def agent(proxy: Resolving) -> Iterator[socket.socket]:
    """An agent's connection to the proxy, with an empty record."""
    proxy.records()
    with socket.create_connection(("127.0.0.1", proxy.ports[HTTP]), timeout=5) as connected:
        yield connected


def _require_next(proxy: Resolving) -> None:
    with socket.create_connection(("127.0.0.1", proxy.ports[HTTP]), timeout=5) as agent:
        assert _asks(agent, "next.test") == b"403"
    (found,) = until(proxy.records, WRITTEN_WITHIN)
    assert found["name"] == "next.test"


def _asks(agent: socket.socket, host: str) -> bytes:
    """Return the status of the answer to a request, empty if there was none."""
    agent.sendall(f"GET /path HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return agent.recv(4096)[9:12]


def _answered(agent: socket.socket, host: str) -> int:
    """Return how many requests were answered before the first unanswered one."""
    statuses = list(iter(partial(_asks, agent, host), b"503"))
    assert set(statuses) <= {b"200"}
    return len(statuses)


@pytest.mark.parametrize("host", ["reset.there.test", "once.there.test"])
def test_a_request_without_an_answer_is_on_record(
    proxy: Resolving, origin: RawOrigin, agent: socket.socket, host: str
) -> None:
    """One line says whose request it was, and that its host did not answer."""
    origin.does = ORIGINS[host]
    assert bool(_answered(agent, host)) == (host == "once.there.test")
    (found,) = until(proxy.records, WRITTEN_WITHIN)
    source = "{}:{}".format(*agent.getsockname())
    assert (found["reason"], found["name"], found["source"]) == (Reason.UNREACHABLE, host, source)
    _require_next(proxy)


def test_a_request_that_its_agent_gives_up_is_not_on_record(
    proxy: Resolving, origin: RawOrigin, agent: socket.socket
) -> None:
    """An agent that closes the connection before an answer was refused nothing."""
    origin.does = _be_silent
    agent.sendall(b"GET / HTTP/1.1\r\nHost: silent.there.test\r\n\r\n")
    until(lambda: origin.opened == 1)
    agent.close()
    until(lambda: origin.open == 0)
    _require_next(proxy)


def test_origins_that_end_kept_connections(proxy: Resolving, origin: RawOrigin) -> None:
    """No request fails on a connection that its origin is just closing, as Apache and Node do after 5 s."""
    origin.does = _keep

    def twice(pause: float) -> list[bytes]:
        with socket.create_connection(("127.0.0.1", proxy.ports[HTTP]), timeout=5) as agent:
            first = _asks(agent, "kept.there.test")
            time.sleep(pause)
            return [first, _asks(agent, "kept.there.test")]

    pauses = [KEPT_SECONDS + (number - 50) / 1000 for number in range(100)]
    with ThreadPoolExecutor(len(pauses)) as agents:
        assert list(agents.map(twice, pauses)) == [[b"200", b"200"]] * len(pauses)
