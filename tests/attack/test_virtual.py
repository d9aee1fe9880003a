"""Forwarded traffic reaches the host of its virtual address, and ends with its rule."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest

from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.programs import OWN_LOOPBACK
from devkit.raw_origin import RawOrigin
from devkit.waiting import until

PORT = 9000
WITHIN = DRAIN_SECONDS + 10
"""Seconds until a removed rule's connections have ended on a busy machine."""

PLACES = {"one.test": OWN_LOOPBACK, "two.test": str(IPv4Address(OWN_LOOPBACK) + 2**20)}
ONE, TWO = ({"dst": name, "proto": "tcp", "port": "9000-9001"} for name in PLACES)


class Host:
    """A host that speaks first, as with SSH: it sends its name and port, and then echoes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.origins = [RawOrigin(port, self._echo, PLACES[name]) for port in (PORT, PORT + 1)]

    def open(self) -> int:
        """Return its number of open connections."""
        return sum(each.open for each in self.origins)

    def _echo(self, connection: socket.socket) -> None:
        connection.sendall(f"{self._name} {connection.getsockname()[1]}".encode())
        while received := connection.recv(4096):
            connection.sendall(received)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Mapping[str, Host]]:
    with ExitStack() as stack:
        made = {name: Host(name) for name in PLACES}
        for origin in (each for host in made.values() for each in host.origins):
            stack.enter_context(origin)
        yield made


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Resolving]:
    """A proxy for two names with virtual addresses."""
    folder = tmp_path_factory.mktemp("virtual")
    with (
        NameServer(PLACES) as names,
        Resolving(folder, program(release), names.port) as started,
    ):
        yield started


def connected(proxy: Resolving, name: str, port: int = PORT) -> socket.socket:
    return socket.create_connection((str(proxy.virtual[name]), port), timeout=5)


def refused(proxy: Resolving, name: str) -> bool:
    try:
        connected(proxy, name).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_removed_rule_ends_its_connections_and_no_others(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """They end after the drain, and new ones are refused at once. Unrelated changes end nothing."""
    proxy.apply(ONE, TWO)
    with connected(proxy, "one.test") as going, connected(proxy, "two.test") as staying:
        assert going.recv(64) + staying.recv(64) == b"one.test 9000two.test 9000"
        proxy.apply(ONE, TWO, {"dst": "other.test", "proto": "tcp", "port": 22}, "b.test")
        began = time.monotonic()
        proxy.apply(TWO, "b.test")
        # Workers close a listener later than it leaves the list, and would accept for as long as it drains.
        until(lambda: refused(proxy, "one.test"), DRAIN_SECONDS - 2)
        going.settimeout(WITHIN)
        assert going.recv(1) == b""
        assert DRAIN_SECONDS - 1 < time.monotonic() - began < WITHIN
        until(lambda: hosts["one.test"].open() == 0)
        staying.sendall(b"ping")
        assert staying.recv(4) == b"ping"
    proxy.apply(ONE, TWO)
    with connected(proxy, "one.test") as again:
        assert again.recv(64) == b"one.test 9000"


def test_changed_ports_of_a_rule_end_nothing_on_others(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """Connections on a port that the rule keeps go on, and new ones are not refused or reset."""
    proxy.apply(ONE)
    outcomes: list[bytes] = []
    changed = threading.Event()

    def begin() -> None:
        while not changed.is_set():
            try:
                with connected(proxy, "one.test") as agent:
                    outcomes.append(agent.recv(64))
            except OSError as error:
                outcomes.append(repr(error).encode())

    with connected(proxy, "one.test") as staying, connected(proxy, "one.test", PORT + 1) as going:
        assert staying.recv(64) + going.recv(64) == b"one.test 9000one.test 9001"
        beginning = threading.Thread(target=begin)
        beginning.start()
        try:
            for ports in ("9000-9002", "9000-9003", "9000-9002", PORT) * 3:
                proxy.apply({**ONE, "port": ports})
        finally:
            changed.set()
            beginning.join()
        assert set(outcomes) == {b"one.test 9000"}
        going.settimeout(WITHIN)
        assert going.recv(1) == b""
        until(lambda: hosts["one.test"].open() == 1)
        staying.sendall(b"ping")
        assert staying.recv(4) == b"ping"
