"""Connections that end with a removed rule, and those that go on, judged by the origin."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack.envoy import chains
from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.hellos import client_hello
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.raw_origin import RawOrigin
from devkit.stacks import rule_set
from devkit.waiting import until

PORT = 80
OVER = DRAIN_SECONDS + 1.5
"""Seconds after which a removed rule's connections would have ended."""

WITHIN = DRAIN_SECONDS + 10
"""Seconds until a removed rule's connections have ended on a busy machine; idle ones would last an hour."""

HTTP_RULE = {"dst": "gone.test", "proto": "http", "port": PORT}
TLS_RULE = {"dst": "also.test", "port": PORT}
KEPT = (
    {"dst": "kept.test", "proto": "http", "port": PORT},
    {"dst": ".below.test", "proto": "http", "port": PORT},
    {"dst": "tls.test", "port": PORT},
)
UPGRADE = "Upgrade: websocket\r\nConnection: upgrade\r\n"


class Origin(RawOrigin):
    """An origin that never closes a connection, and records each connection's end with its first line.

    It sends bytes for ever for `/down`, reads for ever for `/up`, and echoes upgrades and TLS.
    Other requests are answered with their Host header.
    """

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.ends: set[str] = set()
        self.hosts: list[str] = []
        super().__init__(PORT, self._answer)

    def _answer(self, connection: socket.socket) -> None:
        name = ""
        with suppress(OSError):
            while head := _head(connection):
                host = next((each[6:] for each in head if each.lower().startswith("host: ")), "tls")
                path = head[0].split(" ")[1] if host != "tls" else ""
                name = f"{host}{path}"
                self.begun.add(name)
                if host == "tls" or path == "/tunnel":
                    if path:
                        connection.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{UPGRADE}\r\n".encode())
                    while received := connection.recv(65536):
                        connection.sendall(received)
                    break
                if path == "/down":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    while True:
                        connection.sendall(b"4\r\nmore\r\n")
                        time.sleep(0.05)
                if path == "/up":
                    while connection.recv(65536):
                        pass
                    break
                self.hosts.append(host)
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(host)}\r\n\r\n{host}".encode())
        self.ends.add(name)


def _head(connection: socket.socket) -> list[str]:
    """Return the lines of a request's head, or the beginning of something else."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(1)
        if not piece:
            return []
        received += piece
        if received[0] == client_hello(None)[0]:
            return ["hello"]
    return received.decode().split("\r\n")


class Agent:
    """A connection of an agent, kept busy or left idle."""

    def __init__(self, proxy: Resolving, content: bytes, own: str = "") -> None:
        """Connect to Envoy, or to the virtual address of the name `own`, and send the content."""
        place = (str(proxy.virtual[own]), PORT) if own else ("127.0.0.1", proxy.ports[PORT])
        self.socket = socket.create_connection(place, timeout=10)
        self.socket.sendall(content)

    def echoes(self) -> bool:
        """Whether data sent into a tunnel comes back."""
        try:
            self.socket.sendall(b"ping")
            return self.socket.recv(4) == b"ping"
        except OSError:
            return False

    def more(self) -> bool:
        try:
            return bool(self.socket.recv(65536))
        except OSError:
            return False

    def send(self) -> bool:
        """Whether more data is accepted."""
        try:
            self.socket.sendall(b"5\r\nbytes\r\n")
        except OSError:
            return False
        return True


def tunnel(proxy: Resolving, host: str, own: str = "") -> Agent:
    agent = Agent(proxy, f"GET /tunnel HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}\r\n".encode(), own)
    assert agent.socket.recv(4096).startswith(b"HTTP/1.1 101 ")
    return agent


def download(proxy: Resolving, host: str) -> Agent:
    agent = Agent(proxy, f"GET /down HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert agent.socket.recv(4096).startswith(b"HTTP/1.1 200 ")
    return agent


def upload(proxy: Resolving, host: str) -> Agent:
    head = f"POST /up HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Agent(proxy, head.encode())


def over_tls(proxy: Resolving, host: str) -> Agent:
    """Return a connection that looks like TLS to Envoy."""
    hello = client_hello(host.encode())
    agent = Agent(proxy, hello)
    assert agent.socket.recv(len(hello))
    return agent


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as started:
        yield started


@pytest.fixture
def proxy(tmp_path: Path, release: Release) -> Iterator[Resolving]:
    below = ("a.below.test", "b.below.test", "a.wide.test", "b.wide.test")
    names = ("gone.test", "also.test", "changed.test", "kept.test", "tls.test", *below)
    with NameServer(names, OWN_LOOPBACK) as server, Resolving(tmp_path, program(release), server.port) as started:
        started.ports |= {PORT: free_port()}
        started.apply(HTTP_RULE, TLS_RULE, *KEPT)
        yield started


def test_what_no_rule_allows_any_more_ends(proxy: Resolving, origin: Origin) -> None:
    """Tunnels and long requests end with their removed, changed or denied rule; other rules' go on."""
    wide, changed = {"dst": ".wide.test", "port": PORT}, {**HTTP_RULE, "dst": "changed.test"}
    proxy.apply(HTTP_RULE, TLS_RULE, changed, wide, *KEPT)
    idle, busy = (tunnel(proxy, "gone.test") for _ in range(2))
    others = [tunnel(proxy, name) for name in ("changed.test", "a.below.test")]
    in_tls = [over_tls(proxy, name) for name in ("also.test", "a.wide.test")]
    gone = download(proxy, "gone.test"), upload(proxy, "gone.test")
    ending = {f"gone.test/{path}" for path in ("tunnel", "down", "up")} | {
        "changed.test/tunnel",
        "a.below.test/tunnel",
    }
    until(lambda: gone[1].send() and ending <= origin.begun)
    kept = tunnel(proxy, "kept.test"), over_tls(proxy, "tls.test")
    down, up = download(proxy, "kept.test"), upload(proxy, "kept.test")
    denied = [{"dst": name, "action": "deny"} for name in ("a.below.test", "a.wide.test")]
    proxy.apply(*KEPT, wide, {**changed, "allow_private": True}, *denied)
    for name in (b"gone.test", b"a.below.test"):
        assert proxy.request(name, PORT) == b"HTTP/1.1 403 Forbidden"
    after = [tunnel(proxy, name) for name in ("changed.test", "b.below.test")] + [over_tls(proxy, "b.wide.test")]

    def over() -> bool:
        busy.echoes()
        gone[1].send()
        assert all(each.echoes() for each in kept)
        assert down.more()
        assert up.send()
        return ending <= origin.ends

    until(over, WITHIN)
    for each in (idle, *others, *in_tls):
        each.socket.settimeout(WITHIN - DRAIN_SECONDS)
        assert not each.socket.recv(1)
    assert not busy.echoes()
    assert origin.ends == {*ending, "tls"}
    assert all(each.echoes() for each in (*after, *kept))


def test_unrelated_changes_end_nothing(proxy: Resolving, origin: Origin) -> None:
    """Connections survive 20 changes of other rules of both protocols, and last longer than a drain."""
    tunnels = tunnel(proxy, "kept.test"), tunnel(proxy, "a.below.test"), over_tls(proxy, "tls.test")
    down, up = download(proxy, "kept.test"), upload(proxy, "kept.test")
    for number in range(10):
        other = {"dst": f"other-{number}.test", "port": PORT}
        proxy.apply(*KEPT, {**other, "proto": "http"}, other)
        assert all(each.echoes() for each in tunnels)
        proxy.apply(*KEPT, other)
        assert down.more()
        assert up.send()
    last = time.monotonic()
    proxy.apply(*KEPT)
    until(lambda: all(each.echoes() for each in tunnels) and time.monotonic() - last > OVER)
    assert down.more()
    assert up.send()
    assert not origin.ends


def test_a_denied_name_ends_what_an_outer_subtree_allowed(proxy: Resolving, origin: Origin) -> None:
    """A connection may be older than the nearer rule that now denies its name."""
    ending, kept = tunnel(proxy, "a.below.test"), tunnel(proxy, "kept.test")
    nearer = {"dst": ".a.below.test", "proto": "http", "port": PORT}
    proxy.apply(*KEPT, nearer)
    assert ending.echoes()
    proxy.apply(*KEPT, nearer, {"dst": "a.below.test", "action": "deny"})
    until(lambda: "a.below.test/tunnel" in origin.ends, WITHIN)
    assert not ending.echoes()
    assert kept.echoes()


def test_a_name_s_own_address_outlives_the_rule_that_needed_it(proxy: Resolving, origin: Origin) -> None:
    """After its ssh rule is removed, a name's http rule goes on at the virtual address, for all connections."""
    ssh = {"dst": "gone.test", "proto": "ssh"}
    proxy.apply(*KEPT, HTTP_RULE, ssh)
    before = tunnel(proxy, "gone.test", "gone.test")
    removed = time.monotonic()
    proxy.apply(*KEPT, HTTP_RULE)
    until(lambda: before.echoes() and time.monotonic() - removed > OVER)
    after = tunnel(proxy, "gone.test", "gone.test")
    assert after.echoes()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((str(proxy.virtual["gone.test"]), 22), timeout=10)
    proxy.apply(*KEPT)
    until(lambda: not before.echoes() and not after.echoes(), WITHIN)
    until(lambda: origin.ends == {"gone.test/tunnel"})


def test_rules_that_share_a_chain(proxy: Resolving, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed rule ends the connections of rules that share its chain, and no others."""
    monkeypatch.setattr(chains, "ALONE", 0)
    monkeypatch.setattr(chains, "SHARED", 100)
    many = [{"dst": f"n{number}.test", "proto": "http", "port": PORT} for number in range(300)]
    entries = [HTTP_RULE, *KEPT, *many]
    proxy.apply(*entries)
    named = chains.chains("http", Policy(rule_set(*entries)[1]), Protocol.HTTP, PORT).names
    assert len(set(named.values())) < len(named)
    assert len({chain for each, chain in named.items() if each.name in {"gone.test", "kept.test"}}) == 2
    gone, kept = tunnel(proxy, "gone.test"), tunnel(proxy, "kept.test")
    proxy.apply(*entries[1:])
    until(lambda: "gone.test/tunnel" in origin.ends, WITHIN)
    assert not gone.echoes()
    assert kept.echoes()


def test_connections_are_not_confused(proxy: Resolving, origin: Origin) -> None:
    """Each request on one connection reaches its own host, although connections to origins are reused."""
    hosts = ("a.below.test", "b.below.test", "kept.test", "A.below.test")
    agent = Agent(proxy, b"")
    for number in range(40):
        host = hosts[number % len(hosts)]
        agent.socket.sendall(f"GET /{number} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = agent.socket.recv(4096)
        assert answer.endswith(f"\r\n\r\n{host}".encode()), answer
    statistics = proxy.admin("/stats?filter=cluster.http-rules.upstream_cx_total").decode()
    assert 3 <= int(statistics.rpartition(":")[2]) <= 2 * 3  # Envoy hashes what they carry in any order
    assert origin.hosts == [hosts[number % len(hosts)] for number in range(40)]


def test_idle_connections_end(tmp_path: Path, release: Release, origin: Origin) -> None:
    """Connections that send nothing for the idle timeout are closed; others are not."""

    class Impatient(Resolving):
        limits = LimitSettings(idle=2)

    with (
        NameServer(("kept.test", "tls.test"), OWN_LOOPBACK) as server,
        Impatient(tmp_path, program(release), server.port) as proxy,
    ):
        proxy.ports |= {PORT: free_port()}
        proxy.apply(*KEPT)
        idle = tunnel(proxy, "kept.test"), over_tls(proxy, "tls.test")
        busy, stuck = tunnel(proxy, "kept.test"), upload(proxy, "kept.test")
        until(lambda: busy.echoes() and {"tls", "kept.test/up"} <= origin.ends)
        for each in idle:
            assert not each.socket.recv(1)
        assert stuck.socket.recv(4096).startswith(b"HTTP/1.1 408 ")
