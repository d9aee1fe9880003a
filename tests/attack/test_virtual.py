"""What is forwarded as it is: it reaches the host that its address stands for, and ends with its rule."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from ipaddress import IPv4Address

import pytest

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import WRITTEN_WITHIN, Resolving, program
from devkit.hellos import client_hello
from devkit.programs import OWN_LOOPBACK
from devkit.waiting import until
from tests.attack.test_records import serve

PORT = 9000
WITHIN = DRAIN_SECONDS + 10
"""Seconds until what was removed has ended, on a busy machine."""

PLACES = {"one.test": OWN_LOOPBACK, "two.test": str(IPv4Address(OWN_LOOPBACK) + 2**20)}
ONE, TWO = ({"dst": name, "proto": "tcp", "port": "9000-9001"} for name in PLACES)
NOBODY = {"dst": "nobody.test", "proto": "ssh"}


class Host:
    """A host that speaks first, as with SSH: it says its name and port, and then echoes."""

    def __init__(self, name: str, address: str) -> None:
        """Listen on both ports."""
        self.said: list[bytes] = []
        self.open = 0
        self._sockets = [socket.create_server((address, port)) for port in (PORT, PORT + 1)]
        for listening, port in zip(self._sockets, (PORT, PORT + 1), strict=True):
            threading.Thread(target=self._accept, args=(listening, f"{name} {port}".encode()), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listening: socket.socket, greeting: bytes) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=self._serve, args=(connection, greeting), daemon=True).start()

    def _serve(self, connection: socket.socket, greeting: bytes) -> None:
        self.open += 1
        with connection, suppress(OSError):
            connection.sendall(greeting)
            while received := connection.recv(4096):
                self.said.append(received)
                connection.sendall(received)
        self.open -= 1


@pytest.fixture(scope="module")
def hosts() -> Iterator[Mapping[str, Host]]:
    """The host of each name."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Host(name, place))) for name, place in PLACES.items()}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Resolving]:
    """A proxy for two names with addresses of their own."""
    with NameServer({**PLACES, "nobody.test": "127.0.0.3"}) as names:
        started = Resolving(tmp_path_factory.mktemp("virtual"), program(release), names.port)
        yield started
        started.process.terminate()
        started.process.wait()


def connected(proxy: Resolving, name: str, port: int = PORT) -> socket.socket:
    """Return a connection to a name's own address."""
    return socket.create_connection((str(proxy.virtual[name]), port), timeout=5)


def refused(proxy: Resolving, name: str) -> bool:
    """Whether nobody takes connections at a name's own address."""
    try:
        connected(proxy, name).close()
    except ConnectionRefusedError:
        return True
    return False


def test_each_address_leads_to_its_own_host(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """To the same port of it, whatever is sent: a name in a hello or a Host changes nothing."""
    serve(proxy, ONE, TWO)
    lies = (client_hello(b"two.test"), b"GET / HTTP/1.1\r\nHost: two.test\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n")
    for name, port in ((name, port) for name in PLACES for port in (PORT, PORT + 1)):
        for said in lies:
            with connected(proxy, name, port) as agent:
                assert agent.recv(4096) == f"{name} {port}".encode()
                agent.sendall(said)
                assert agent.recv(4096) == said
                assert hosts[name].said[-1] == said


def test_a_removed_rule_ends_its_connections_and_no_others(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """After the drain; new ones are refused at once. Unrelated changes end nothing."""
    serve(proxy, ONE, TWO)
    with connected(proxy, "one.test") as going, connected(proxy, "two.test") as staying:
        assert going.recv(64) + staying.recv(64) == b"one.test 9000two.test 9000"
        serve(proxy, ONE, TWO, {"dst": "other.test", "proto": "tcp", "port": 22}, "b.test")
        began = time.monotonic()
        serve(proxy, TWO, "b.test")
        # Workers close a listener after it is gone from the list, and would accept for as long as it drains.
        until(lambda: refused(proxy, "one.test"), DRAIN_SECONDS - 2)
        going.settimeout(WITHIN)
        assert going.recv(1) == b""
        assert DRAIN_SECONDS - 1 < time.monotonic() - began < WITHIN
        until(lambda: hosts["one.test"].open == 0)
        staying.sendall(b"ping")
        assert staying.recv(4) == b"ping"
    serve(proxy, ONE, TWO)
    with connected(proxy, "one.test") as again:
        assert again.recv(64) == b"one.test 9000"


def test_changed_ports_of_a_rule_end_nothing_on_others(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """Connections on a port that the rule keeps go on, and none that begins meanwhile is refused or reset."""
    serve(proxy, ONE)
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
                serve(proxy, {**ONE, "port": ports})
        finally:
            changed.set()
            beginning.join()
        assert set(outcomes) == {b"one.test 9000"}
        going.settimeout(WITHIN)
        assert going.recv(1) == b""
        until(lambda: hosts["one.test"].open == 1)
        staying.sendall(b"ping")
        assert staying.recv(4) == b"ping"


def test_other_rules_of_the_name_hold_at_its_address(proxy: Resolving) -> None:
    """TLS and HTTP are forwarded from there by their rules, and no other name is known there."""
    serve(
        proxy, ONE, {"dst": ".test", "force": True, "port": 443}, {"dst": "one.test", "proto": "http"}, "two.test"
    )
    at = proxy.virtual["one.test"]
    for content, port, name, reason in (
        (client_hello(b"one.test"), 443, "one.test", Reason.UNREACHABLE),
        (client_hello(b"two.test"), 443, "two.test", Reason.NO_RULE),
        (b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n", 80, "one.test", Reason.UNREACHABLE),
        (b"GET / HTTP/1.1\r\nHost: two.test\r\n\r\n", 80, "two.test", Reason.NO_RULE),
    ):
        proxy.records()
        with socket.create_connection((str(at), port), timeout=5) as agent:
            agent.sendall(content)
            with suppress(ConnectionResetError):
                agent.recv(4096)
        (found,) = until(proxy.records, WRITTEN_WITHIN)
        assert (found["name"], found["reason"]) == (name, reason)


def greeting(proxy: Resolving, name: str) -> bytes:
    """Return what the host of a name says first."""
    with connected(proxy, name) as agent, suppress(ConnectionResetError):
        return agent.recv(64)
    return b""


@pytest.mark.usefixtures("hosts")
def test_an_address_with_a_name(proxy: Resolving) -> None:
    """The name is not looked up, it stands for the address. The old listener may have taken one connection."""
    address = PLACES["two.test"]
    assert IPv4Address(address).is_loopback
    rules = RuleSet((Rule(Destination("one.test", subtree=False), Protocol.TCP, PORT, host=address),))
    proxy.serve(rules)
    until(proxy.serves)
    until(lambda: greeting(proxy, "one.test") == b"two.test 9000")


def test_a_connection_that_leads_nowhere_is_on_record(proxy: Resolving) -> None:
    """With the name that the address stands for, and the reason."""
    gone = {"dst": "gone.test", "proto": "ssh"}
    serve(proxy, ONE, NOBODY, gone)
    for rule, reason in ((NOBODY, Reason.UNREACHABLE), (gone, Reason.NO_ADDRESS)):
        proxy.records()
        with connected(proxy, rule["dst"], 22) as agent, suppress(ConnectionResetError):
            assert agent.recv(1) == b""
        (found,) = until(proxy.records, WRITTEN_WITHIN)
        assert (found["name"], found["port"], found["protocol"], found["reason"]) == (
            rule["dst"],
            22,
            "tcp",
            reason,
        )
        assert found["source"].startswith("127.")
