"""What one connection can cost Envoy, whatever the agent and the origin do with it."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import h2.connection
import h2.settings
import pytest

from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.hellos import client_hello
from devkit.http2_host import LARGE, Http2Host
from devkit.inspecting import Inspecting, certificate
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.waiting import until

TLS, HTTP = 8080, 80
CONNECTIONS = 40
_KIBIBYTE = 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
TUNNEL = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a.there.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
_CHUNK = bytes(64 * _KIBIBYTE)


@pytest.fixture
def proxy(tmp_path: Path, release: Release) -> Iterator[Resolving]:
    """A proxy with a rule for an origin on loopback."""
    with (
        NameServer(("a.there.test",), OWN_LOOPBACK) as names,
        Resolving(tmp_path, program(release), names.port) as started,
    ):
        started.ports |= {TLS: free_port(), HTTP: free_port()}
        rule = {"dst": "a.there.test"}
        started.apply({**rule, "port": TLS}, {**rule, "port": HTTP, "proto": "http"})
        yield started


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """The files of the certificate and the key of an origin and of a proxy that inspects TLS."""
    return certificate(tmp_path / "own", "a.there.test")


@pytest.fixture
def inspecting(tmp_path: Path, release: Release, own: tuple[Path, Path]) -> Iterator[Inspecting]:
    """That proxy, once it has served somebody."""
    with (
        NameServer(("a.there.test",), OWN_LOOPBACK) as names,
        Inspecting(tmp_path, program(release), names.port, own, own[0]) as started,
    ):
        started.apply({"dst": "a.there.test", "port": TLS, "inspect": True, "websocket": True})
        with started.connected("a.there.test"):
            yield started


class Endless:
    """An origin that sends to every connection for as long as the other end takes it."""

    def __init__(self, port: int, head: bytes = ANSWER, tls: ssl.SSLContext | None = None) -> None:
        """Listen, with TLS if it is given. What is sent begins with `head`."""
        self._head, self._tls = head, tls
        self._connections: list[socket.socket] = []
        self._sent = self._sent_before = 0
        self._server = socket.create_server((OWN_LOOPBACK, port), backlog=CONNECTIONS)
        for work in (self._accept, self._send):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and end what is open."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for each in (self._server, *self._connections):
            each.close()

    def stuck(self) -> bool:
        """Whether all are connected, and nobody has taken anything since the last time."""
        before, self._sent_before = self._sent_before, self._sent
        return len(self._connections) == CONNECTIONS and before == self._sent

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                    connection.recv(4096)
                connection.settimeout(0)
                connection.send(self._head)
                self._connections.append(connection)

    def _send(self) -> None:
        while self._server.fileno() >= 0:
            for each in list(self._connections):
                with suppress(OSError):
                    while True:
                        self._sent += each.send(_CHUNK)
            time.sleep(0.01)


def test_a_download_that_is_not_read(proxy: Resolving) -> None:
    """It costs no more than what the number of connections was derived from; and it goes on when it is read."""
    before, port = _resident(proxy), HTTP
    request = b"GET / HTTP/1.1\r\nHost: a.there.test\r\n\r\n"
    with closing(Endless(port)) as origin, ExitStack() as stack:
        for _ in range(CONNECTIONS):
            agent = stack.enter_context(socket.socket())
            agent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * _KIBIBYTE)
            agent.connect(("127.0.0.1", proxy.ports[port]))
            agent.sendall(request)
        until(origin.stuck, 300, every=0.2)
        assert 0 < (_resident(proxy) - before) // CONNECTIONS <= bounds.A_CONNECTION
        with socket.create_connection(("127.0.0.1", proxy.ports[port]), timeout=30) as other:
            other.sendall(request)
            received = 0
            while received < 8 * bounds.A_CONNECTION:
                received += len(other.recv(65536))


@pytest.mark.parametrize("port", [TLS, HTTP])
def test_a_tunnel_that_neither_end_reads(proxy: Resolving, port: int) -> None:
    """It costs no more than that either, when both ends send all that is taken."""
    before = _resident(proxy)
    with closing(Endless(port, TUNNEL if port == HTTP else b"")) as origin, ExitStack() as stack:
        agents = []
        for _ in range(CONNECTIONS):
            agent = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.ports[port]), timeout=30))
            agent.sendall(client_hello(b"a.there.test") if port == TLS else UPGRADE)
            agents.append(agent)
        _fill(agents, origin)
        assert 0 < (_resident(proxy) - before) // CONNECTIONS <= bounds.A_CONNECTION


def test_a_tunnel_in_inspected_tls_that_neither_end_reads(inspecting: Inspecting, own: tuple[Path, Path]) -> None:
    """It costs no more than that either, with the state of TLS at both ends."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*own)
    before = _resident(inspecting)
    with closing(Endless(TLS, TUNNEL, tls)) as origin, ExitStack() as stack:
        agents = []
        for _ in range(CONNECTIONS):
            agent = stack.enter_context(inspecting.connected("a.there.test"))
            agent.sendall(UPGRADE)
            agents.append(agent)
        _fill(agents, origin)
        assert 0 < (_resident(inspecting) - before) // CONNECTIONS <= bounds.A_CONNECTION


@pytest.mark.parametrize("over", ["http/1.1", "h2"])
def test_a_request_in_inspected_tls_to_a_host_with_http2(
    inspecting: Inspecting, own: tuple[Path, Path], over: str
) -> None:
    """It costs no more than that either, when neither the agent nor the host reads what the other one sends."""
    before = _resident(inspecting)
    with Http2Host(TLS, *map(str, own)) as host, ExitStack() as stack:
        body = bytes(bounds.A_CONNECTION)
        chunked = b"%x\r\n%b\r\n" % (len(body), body)
        agents = []
        for _ in range(CONNECTIONS):
            agent = stack.enter_context(inspecting.connected("a.there.test", TLS, over))
            if over == "h2":
                agent.sendall(_posted_over_http2())
            else:
                head = f"POST {LARGE} HTTP/1.1\r\nHost: a.there.test\r\nTransfer-Encoding: chunked\r\n\r\n"
                agent.sendall(head.encode())
            agents.append(agent)
        until(lambda: len(host.requests) == CONNECTIONS, 60)
        sent = [0]

        def stuck() -> bool:
            sent.append(host.sent)
            for agent in agents if over == "http/1.1" else ():
                with suppress(OSError):
                    agent.settimeout(0)
                    while True:
                        sent[-1] += agent.send(chunked)
            return sent[-1] == sent[-2]

        until(stuck, 300, every=0.5)
        assert 0 < (_resident(inspecting) - before) // CONNECTIONS <= bounds.A_CONNECTION


def _posted_over_http2() -> bytes:
    """Return a request with as much of a body as may be sent at first, whose answer may be of any size."""
    agent = h2.connection.H2Connection()
    agent.initiate_connection()
    most = 1 << 30
    agent.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: most})
    agent.increment_flow_control_window(most)
    agent.send_headers(
        1, [(":method", "POST"), (":scheme", "https"), (":authority", "a.there.test"), (":path", LARGE)]
    )
    while room := min(agent.local_flow_control_window(1), agent.max_outbound_frame_size):
        agent.send_data(1, bytes(room))
    return agent.data_to_send()


def _fill(agents: Sequence[socket.socket], origin: Endless) -> None:
    """Send all that is taken, once each agent has had an answer, and read no more of it."""
    for agent in agents:
        assert agent.recv(1)
        agent.settimeout(0)

    def stuck() -> bool:
        sent = 0
        for each in agents:
            with suppress(OSError):
                while True:
                    sent += each.send(_CHUNK)
        return origin.stuck() and not sent

    until(stuck, 300, every=0.2)  # hundreds of megabytes pass


def test_headers_that_never_end(proxy: Resolving) -> None:
    """They cost what they may have at most, and a little."""
    before = _resident(proxy)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            agent = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.ports[HTTP]), timeout=30))
            agent.sendall(b"GET / HTTP/1.1\r\nHost: a.there.test\r\nX: ")
            agent.sendall(b"x" * (bounds.HEADERS_KIBIBYTES - 1) * _KIBIBYTE)
        until(lambda: _active(proxy) == CONNECTIONS)
        assert (_resident(proxy) - before) // CONNECTIONS <= bounds.A_CONNECTION


def _resident(proxy: Resolving) -> int:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * _KIBIBYTE


def _active(proxy: Resolving) -> int:
    return int(proxy.admin("/stats?filter=http.http.downstream_rq_active").rpartition(b":")[2])
