"""Limits for all of Envoy's workers together, whatever their number."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.programs import OWN_LOOPBACK
from devkit.stacks import rule_set
from devkit.waiting import until

CONNECTIONS = 400
HEAP = 512 << 20
HTTP = 80
DENIED = "^access_log[.]process_ratelimit[.]denied$"
"""What `fwctl suppressed` reports."""
OPEN = "port-80.downstream_cx_active$"
RULES = rule_set({"dst": "a.there.test", "port": HTTP, "proto": "http"})[1]


class Sharing(Resolving):
    """A proxy with several workers, and small bounds."""

    most = HEAP, CONNECTIONS

    def statistic(self, pattern: str) -> int:
        """Return the sum of the statistics whose names match."""
        lines = self.admin(f"/stats?filter={pattern}").decode().splitlines()
        return sum(int(line.rpartition(":")[2]) for line in lines)

    def connect(self, port: int, source: str = "127.0.0.1") -> socket.socket:
        """Return a connection of an agent."""
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


def test_an_agent_s_refusals_have_one_share_of_the_log(proxy: Sharing) -> None:
    """Workers share one count of an agent's recorded and unrecorded refusals."""
    before = proxy.statistic(DENIED)
    started = time.monotonic()
    with ExitStack() as stack:
        agents = [stack.enter_context(proxy.connect(HTTP, "127.0.0.7")) for _ in range(32)]
        for _ in range(120):
            for agent in agents:
                agent.sendall(b"GET / HTTP/1.1\r\nHost: flood.test\r\n\r\n")
            for agent in agents:
                assert agent.recv(65536)
    seconds = time.monotonic() - started
    denied = proxy.statistic(DENIED) - before
    assert 3840 - denied <= 2000 + 1000 * (seconds + 1)
    until(lambda: _lines(proxy, "flood.test") == 3840 - denied)


def _begun(proxy: Sharing) -> socket.socket:
    """Return a connection with a started request; before that, it does not count as open."""
    agent = proxy.connect(HTTP)
    with suppress(ConnectionError):
        agent.sendall(b"GET / HTTP/1.1\r\n")
    return agent


def _lines(proxy: Sharing, name: str) -> int:
    lines, _, _ = proxy.log.read_text().rpartition("\n")
    return sum(json.loads(line).get("name") == name for line in lines.splitlines() if line.startswith("{"))
