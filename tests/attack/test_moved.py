"""How long a name's former address is used, judged by hosts at both addresses."""

import contextlib
import socket
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
from devkit.raw_origin import RawOrigin
from devkit.waiting import until

TLS, HTTP = 8080, 8081
USES = [
    (f"{number}.{kind}.test", port, every)
    for kind, port in (("named", TLS), ("there", HTTP), ("named-too", HTTP))
    for number, every in enumerate((0.1, 0.7))
]
"""Names and ports, with the seconds between two uses. Names below `there.test` match a subtree rule."""

LONGEST = 4.5
"""Seconds for which a name's former address may be used after its TTL. Envoy asks again within two, and uses a
connection that it has again for no longer; by default it would be twice as long, or for ever."""

USED_SECONDS = 5.5
"""Seconds of use before the move. By default, Envoy resolves a name every 5 s, so it has just done so."""

FORMER, PRESENT = OWN_LOOPBACK, str(IPv4Address(OWN_LOOPBACK) + 2**21)


def _answer(connection: socket.socket) -> None:
    """Answer each request or hello with the address."""
    own = connection.getsockname()[0].encode()
    while connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(own), own))


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server whose answers must not be cached."""
    with NameServer([name for name, *_ in USES], FORMER, ttl=0) as server:
        yield server


@pytest.fixture
def proxy(tmp_path: Path, release: Release, names: NameServer) -> Iterator[Resolving]:
    """A proxy with rules for both names and protocols, and a host at each address."""
    with contextlib.ExitStack() as stack:
        for address in (FORMER, PRESENT):
            for port in (TLS, HTTP):
                stack.enter_context(RawOrigin(port, _answer, address))
        started = stack.enter_context(Resolving(tmp_path, program(release), names.port))
        started.ports |= {TLS: free_port(), HTTP: free_port()}
        own = [{"dst": name} for name, *_ in USES if ".there." not in name]
        both = (*own, {"dst": ".there.test"})
        http = ({**each, "port": HTTP, "proto": "http"} for each in both)
        started.apply(*({**each, "port": TLS} for each in both), *http)
        yield started


def _reached(proxy: Resolving, name: str, port: int) -> str:
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


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_name_that_moves(proxy: Resolving, names: NameServer, ttl: int) -> None:
    """However often a name is used, its former address is used only shortly beyond the TTL."""
    names.ttl = ttl
    with ThreadPoolExecutor(len(USES)) as pool:
        used = [pool.submit(_longest_use, proxy, names, *use) for use in USES]
    assert max(each.result() for each in used) < ttl + LONGEST


def _longest_use(proxy: Resolving, names: NameServer, name: str, port: int, every: float) -> float:
    """Move a name while it is used, and return how many seconds its former address was still used."""
    until(lambda: _reached(proxy, name, port) == FORMER)
    began, moved, last = time.monotonic(), 0.0, 0.0
    while True:
        time.sleep(every)  # the agent's rhythm, not a wait for something
        asked, reached = time.monotonic(), _reached(proxy, name, port)
        if (moved and reached == PRESENT) or last > 10 * LONGEST:
            return last
        if not reached:
            continue  # Envoy had just forgotten the name below the subtree, after a second without use
        assert moved or reached == FORMER
        if moved:
            last = asked - moved
        elif asked > began + USED_SECONDS:
            names.move(name, PRESENT)
            moved = time.monotonic()
