"""Envoy's log lines about allowed connections: one line, with the target and the traffic."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from clawker_fw.stack.envoy.bounds import DATAGRAM
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import HERE, Resolving, program
from devkit.hellos import client_hello
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.raw_origin import RawOrigin
from devkit.waiting import until

TLS, HTTP, OPAQUE = 8080, 80, 9000
NAMES = ("a.there.test", "b.there.test", "db.test")
NAMED = (
    {"dst": ".there.test", "port": TLS},
    {"dst": ".there.test", "port": HTTP, "proto": "http"},
    {"dst": "db.test", "port": OPAQUE, "proto": "tcp"},
)
UDP = {"dst": "db.test", "port": OPAQUE, "proto": "udp"}
BODY = b"x" * 1000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def answer(connection: socket.socket) -> None:
    """Answer each message with the same content."""
    while connection.recv(65536):
        connection.sendall(HEAD + BODY)


class Echoes(socketserver.BaseRequestHandler):
    """A host that sends each datagram back."""

    def handle(self) -> None:
        content, host = self.request
        host.sendto(content, self.client_address)


class Watched(Resolving):
    """A proxy whose usage lines are read."""

    taken = 0

    def used(self) -> list[list[str]]:
        """Return the words of each usage line since the last call."""
        lines = [each.split(" ") for each in self.log.read_text().splitlines() if each.startswith("used ")]
        fresh, self.taken = lines[self.taken :], len(lines)
        return fresh


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Watched]:
    """A proxy with rules of each kind, and the host behind their names."""
    echoing = socketserver.ThreadingUDPServer((OWN_LOOPBACK, OPAQUE), Echoes)
    echoing.daemon_threads = True
    with echoing, ExitStack() as stack:
        threading.Thread(target=echoing.serve_forever, daemon=True).start()
        stack.callback(echoing.shutdown)
        for port in (TLS, HTTP, OPAQUE):
            stack.enter_context(RawOrigin(port, answer))
        names = stack.enter_context(NameServer(NAMES, OWN_LOOPBACK))
        folder = tmp_path_factory.mktemp("usage")
        started = stack.enter_context(Watched(folder, program(release), names.port))
        started.ports |= {TLS: free_port(), HTTP: free_port()}
        started.apply(*NAMED, UDP)
        yield started


def exchange(place: tuple[str, int], *said: bytes) -> int:
    """Send messages on one connection, one after the other, and return how many bytes come back."""
    received = 0
    with socket.create_connection(place, timeout=10) as agent:
        for number, each in enumerate(said, 1):
            agent.sendall(each)
            while received < number * len(HEAD + BODY):
                received += len(agent.recv(65536))
    return received


def test_a_connection_is_one_line(proxy: Watched) -> None:
    """The line has the requested name in lower case (or the address's name), the rule's port, bytes and chain."""
    proxy.used()
    hello = client_hello(b"B.there.test")
    received = exchange(proxy.place(TLS, HERE), hello)
    (line,) = until(proxy.used)
    assert line[:4] == ["used", "https", "b.there.test", str(TLS)]
    assert line[4].rpartition(":")[0] == "127.0.0.1"
    assert line[5:8] == [str(len(hello)), str(received), "Ended"]
    assert line[8] != "-"
    assert " ".join(line[9:]) == "tls .there.test guarded"
    received = exchange((str(proxy.virtual["db.test"]), OPAQUE), b"hello")
    (line,) = until(proxy.used)
    assert line[:4] == ["used", "tcp", "db.test", str(OPAQUE)]
    assert line[5:8] == ["5", str(received), "TcpConnectionEnd"]


def test_requests_share_a_line(proxy: Watched) -> None:
    """They share one or two connections to their host (`http._REUSE`). The line has the agent, but no path."""
    proxy.used()
    request = b"GET /secret?token=1 HTTP/1.1\r\nHost: A.there.test\r\n\r\n"
    exchange(proxy.place(HTTP, HERE), *[request] * 20)
    lines: list[list[str]] = []

    def sent() -> int:
        lines.extend(proxy.used())
        return sum(int(each[6]) for each in lines)

    until(lambda: 20 * len(BODY) < sent() < 20 * (len(BODY) + 400))
    assert len(lines) <= 2
    for line in lines:
        assert line[:4] == ["used", "http", "a.there.test", str(HTTP)]
        assert line[4].rpartition(":")[0] == "127.0.0.1"
        assert "secret" not in " ".join(line)
        assert " ".join(line[9:]).startswith("http 80 .there.test")


def test_a_session_of_datagrams_is_one_line_at_its_end(proxy: Watched) -> None:
    """The session ends with its rule here. While it is open, it has few lines."""
    proxy.used()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.connect((str(proxy.virtual["db.test"]), OPAQUE))
        agent.settimeout(0.5)

        def answered() -> bool:
            agent.send(b"ping")
            try:
                return agent.recv(DATAGRAM) == b"ping"
            except TimeoutError:
                return False

        until(answered)
        proxy.apply(*NAMED)
        ended = until(lambda: [each for each in proxy.used() if each[7] == "UdpSessionEnd"])
    (line,) = ended
    assert line[:4] == ["used", "udp", "db.test", str(OPAQUE)]
    assert int(line[5]) >= len(b"ping") <= int(line[6])
    assert line[8] != "-"


def test_what_is_refused_is_no_use(proxy: Watched) -> None:
    """Refused and unreachable requests are no uses, and a forged line does not count."""
    proxy.used()
    for port, said in (
        (TLS, client_hello(b"other.test")),
        (TLS, client_hello(b"nobody.there.test")),
        (TLS, client_hello(b"x.there.test\nused https forged.test 443")),
        (HTTP, b"GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n"),
        (HTTP, b"GET / HTTP/1.1\r\nHost: nobody.there.test\r\nConnection: close\r\n\r\n"),
        (HTTP, b"GET / HTTP/1.1\r\nHost: a.there.test used\r\nConnection: close\r\n\r\n"),
    ):
        proxy.send(said, port)
    exchange(proxy.place(TLS, HERE), client_hello(b"a.there.test"))
    (line,) = until(proxy.used)
    assert line[2] == "a.there.test"
