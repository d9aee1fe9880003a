"""For how long an address is used that a name does not have any more: the judges are hosts at both addresses."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import HERE, Resolving, program
from devkit.hellos import client_hello
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.stacks import rule_set
from devkit.waiting import until

TLS, HTTP = 8080, 8081
NAMED, NAMED_TOO, BELOW = "named.test", "named-too.test", "a.there.test"

LONGEST = 4.5
"""Seconds for which a name's former address may be used after its TTL. Envoy asks again within two, and uses a
connection that it has again for no longer; by default it would be twice as long, or for ever."""

USED_SECONDS = 5.5
"""For how long it is used before it moves. By default, Envoy looks a name up every 5 s: it was, just before."""

FORMER, PRESENT = OWN_LOOPBACK, str(IPv4Address(OWN_LOOPBACK) + 2**21)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Answer each request with the address, and a hello with the same."""
        own = self.request.getsockname()[0].encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(own), own)
        with contextlib.suppress(ConnectionError):
            while self.request.recv(65536):
                self.request.sendall(answer)


class _Host(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server whose answers must not be kept."""
    with NameServer((NAMED, NAMED_TOO, BELOW), FORMER, ttl=0) as server:
        yield server


@pytest.fixture
def proxy(tmp_path: Path, release: Release, names: NameServer) -> Iterator[Resolving]:
    """A proxy with rules for both names and protocols, and a host at each address."""
    with contextlib.ExitStack() as stack:
        for address in (FORMER, PRESENT):
            for port in (TLS, HTTP):
                host = stack.enter_context(_Host((address, port), _Handler))
                threading.Thread(target=host.serve_forever, daemon=True).start()
                stack.callback(host.shutdown)
        started = Resolving(tmp_path, program(release), names.port)
        stack.callback(started.process.wait)
        stack.callback(started.process.terminate)
        started.ports |= {TLS: free_port(), HTTP: free_port()}
        both = ({"dst": NAMED}, {"dst": NAMED_TOO}, {"dst": ".there.test"})
        rules = (
            *({**each, "port": TLS} for each in both),
            *({**each, "port": HTTP, "proto": "http"} for each in both),
        )
        started.serve(rule_set(*rules)[1])
        until(started.serves)
        yield started


def _reached(proxy: Resolving, name: str, port: int) -> str:
    """Return the address of the host that answers, or nothing."""
    sent = client_hello(name.encode()) if port == TLS else f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(proxy.place(port, HERE), timeout=10) as agent,
    ):
        agent.sendall(sent)
        answer = agent.recv(65536)
        if answer.startswith(b"HTTP/1.1 200 "):
            return answer.rpartition(b"\r\n")[2].decode()
    return ""


@pytest.mark.parametrize("every", [0.1, 0.7])
@pytest.mark.parametrize("ttl", [0, 1])
def test_a_name_that_moves(proxy: Resolving, names: NameServer, ttl: int, every: float) -> None:
    """However often it is used, the address that it had before is not used for long after its TTL."""
    names.ttl = ttl
    with ThreadPoolExecutor() as pool:
        used = [
            pool.submit(_longest_use, proxy, names, name, port, every)
            for name, port in ((NAMED, TLS), (BELOW, HTTP), (NAMED_TOO, HTTP))
        ]
    assert max(each.result() for each in used) < ttl + LONGEST


def _longest_use(proxy: Resolving, names: NameServer, name: str, port: int, every: float) -> float:
    """Move a name while it is used, and return for how many seconds its former address was."""
    until(lambda: _reached(proxy, name, port) == FORMER)
    began, moved, last = time.monotonic(), 0.0, 0.0
    while True:
        time.sleep(every)  # how often an agent uses it, not for how long something is waited for
        asked, reached = time.monotonic(), _reached(proxy, name, port)
        if (moved and reached == PRESENT) or last > 10 * LONGEST:
            return last
        if not reached:
            continue  # Envoy forgot a name below the subtree at that moment, after a second without use
        assert moved or reached == FORMER
        if moved:
            last = asked - moved
        elif asked > began + USED_SECONDS:
            names.move(name, PRESENT)
            moved = time.monotonic()
