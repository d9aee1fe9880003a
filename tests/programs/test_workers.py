"""Limits for all of Envoy's workers together, whatever their number."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.release import Release
from devkit.attacks.requests import PREFACE, block, frame, pseudo
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.stacks import rule_set
from devkit.waiting import until

CONNECTIONS = 400
HEAP = 512 << 20
TLS, HTTP = 8080, 80
RATE = 50
OPEN = "port-80.downstream_cx_active$"
RULES = rule_set({"dst": "a.there.test", "port": HTTP, "proto": "http"}, {"dst": "a.there.test", "port": TLS})[1]


class Sharing(Resolving):
    """A proxy with several workers, and small bounds."""

    most = HEAP, CONNECTIONS
    limits = LimitSettings(requests_per_second=RATE)

    def statistic(self, pattern: str) -> int:
        """Return the sum of the statistics whose names match."""
        lines = self.admin(f"/stats?filter={pattern}").decode().splitlines()
        return sum(int(line.rpartition(":")[2]) for line in lines)

    def connect(self, port: int, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[port]), timeout=10, source_address=(source, 0))


@pytest.fixture(scope="module", params=[1, 8])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, release: Release
) -> Iterator[Sharing]:
    """A proxy with this many workers, and a name server."""
    kind = type("Sharing", (Sharing,), {"workers": request.param})
    folder = tmp_path_factory.mktemp("workers")
    with (
        NameServer(("a.there.test",), OWN_LOOPBACK) as names,
        kind(folder, program(release), names.port) as started,
    ):
        started.ports |= {port: free_port() for port in (TLS, HTTP)}
        started.obey(RULES)
        yield started


def test_there_are_as_many_workers_as_are_set(proxy: Sharing) -> None:
    """Each worker listens, and connections are shared among them."""
    assert proxy.statistic("^server.concurrency$") == proxy.workers
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(_begun(proxy))
        until(lambda: proxy.statistic(OPEN) == 100)
        shares = [
            proxy.statistic(f"port-80.worker_{number}.downstream_cx_active$") for number in range(proxy.workers)
        ]
        assert sum(shares) == 100
        assert all(shares)


def test_connections_are_bounded_for_all_workers_together(proxy: Sharing) -> None:
    """The excess connection is refused whichever worker gets it, and free room is used."""
    until(lambda: proxy.statistic(OPEN) == 0)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS + 100):
            stack.enter_context(_begun(proxy))
        until(lambda: proxy.statistic("port-80.downstream_global_cx_overflow$") == 100)
        until(lambda: proxy.statistic(OPEN) == CONNECTIONS)  # each counts when its worker has accepted it
    until(lambda: proxy.statistic(OPEN) == 0)
    with proxy.connect(HTTP) as agent:
        agent.sendall(b"GET / HTTP/1.1\r\nHost: refused.test\r\n\r\n")
        assert agent.recv(4096).startswith(b"HTTP/1.1 403 ")


def test_requests_beyond_an_agent_s_rate_wait(proxy: Sharing) -> None:
    """All workers and ports count them together. They wait for a second, are on record, and delay nobody else."""
    started = time.monotonic()
    with ExitStack() as stack:
        agents = [stack.enter_context(proxy.connect(port, "127.0.0.7")) for port in (HTTP, TLS) * 16]
        neighbour = stack.enter_context(proxy.connect(HTTP, "127.0.0.8"))
        for _ in range(10):
            for agent in agents:
                agent.sendall(b"GET / HTTP/1.1\r\nHost: flood.test\r\n\r\n")
            neighbour.settimeout(bounds.WAIT_SECONDS / 2)
            neighbour.sendall(b"GET / HTTP/1.1\r\nHost: near.test\r\n\r\n")
            assert neighbour.recv(65536).startswith(b"HTTP/1.1 403 ")
            for agent in agents:
                assert agent.recv(65536).startswith(b"HTTP/1.1 403 ")
    seconds = time.monotonic() - started
    assert RATE * (1 + seconds) + len(agents) * (1 + seconds / bounds.WAIT_SECONDS) >= 320
    until(lambda: (_lines(proxy, "flood.test"), _lines(proxy, "near.test")) == (320, 10))


def test_a_connection_of_requests_that_are_reset_ends(proxy: Sharing) -> None:
    """An agent that resets what would wait needs another connection soon, and the kernel counts these."""
    with proxy.connect(HTTP, "127.0.0.9") as agent:
        for _ in range(RATE // bounds.BURSTS):
            agent.sendall(b"GET / HTTP/1.1\r\nHost: flood.test\r\n\r\n")
            assert agent.recv(65536)
    fields, reset = block(pseudo("flood.test")), (8).to_bytes(4, "big")
    streams = range(1, 8 * bounds.RESETS, 2)
    sent = (frame(1, 0x5, stream, fields) + frame(3, 0, stream, reset) for stream in streams)
    with proxy.connect(HTTP, "127.0.0.9") as agent:
        agent.sendall(PREFACE + frame(4, 0, 0, b"") + b"".join(sent))
        with suppress(ConnectionError):
            while agent.recv(65536):
                pass


def _begun(proxy: Sharing) -> socket.socket:
    """Return a connection with a started request; before that, it does not count as open."""
    agent = proxy.connect(HTTP)
    with suppress(ConnectionError):
        agent.sendall(b"GET / HTTP/1.1\r\n")
    return agent


def _lines(proxy: Sharing, name: str) -> int:
    lines, _, _ = proxy.log.read_text().rpartition("\n")
    return sum(json.loads(line).get("name") == name for line in lines.splitlines() if line.startswith("{"))
