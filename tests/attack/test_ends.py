"""What a removed rule ends, and what goes on: tunnels, long requests and connections, judged by the origin."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.envoy import chains
from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.hellos import client_hello
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.stacks import rule_set
from devkit.waiting import until

PORT = 80
OVER = DRAIN_SECONDS + 1.5
"""Seconds after which what was removed would have ended."""

WITHIN = DRAIN_SECONDS + 10
"""Seconds until what was removed has ended, on a busy machine. Nothing else would end it for an hour."""

HTTP_RULE = {"dst": "gone.test", "proto": "http", "port": PORT}
TLS_RULE = {"dst": "also.test", "port": PORT}
KEPT = (
    {"dst": "kept.test", "proto": "http", "port": PORT},
    {"dst": ".below.test", "proto": "http", "port": PORT},
    {"dst": "tls.test", "port": PORT},
)
UPGRADE = "Upgrade: websocket\r\nConnection: upgrade\r\n"


class Origin:
    """An origin that never ends anything by itself, and notes the end of each connection by its first line.

    A request for `/down` gets bytes for ever, one for `/up` is read for ever, an upgrade and TLS are echoed. Any
    other is answered with the Host that it was for.
    """

    def __init__(self) -> None:
        """Listen."""
        self.open: dict[str, socket.socket] = {}
        self.ended: dict[str, float] = {}
        self.hosts: list[tuple[str, str]] = []
        self._server = socket.create_server((OWN_LOOPBACK, PORT))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and end what is open."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for each in (self._server, *self.open.values()):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        name = ""
        with suppress(OSError):
            while head := _head(connection):
                host = next((each[6:] for each in head if each.lower().startswith("host: ")), "tls")
                path = head[0].split(" ")[1] if host != "tls" else ""
                name = f"{host}{path}"
                self.open[name] = connection
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
                self.hosts.append((path, host))
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(host)}\r\n\r\n{host}".encode())
        if name:
            self.ended[name] = time.monotonic()
        connection.close()


def _head(connection: socket.socket) -> list[str]:
    """Return the lines of a request's head, or the beginning of what is no request."""
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
    """A connection of an agent, which is kept busy or left alone."""

    def __init__(self, proxy: Resolving, content: bytes, own: str = "") -> None:
        """Connect, or to a name's `own` address, and say what is wanted."""
        place = (str(proxy.virtual[own]), PORT) if own else ("127.0.0.1", proxy.ports[PORT])
        self.socket = socket.create_connection(place, timeout=10)
        self.socket.sendall(content)

    def echoes(self) -> bool:
        """Whether what is sent into a tunnel comes back."""
        try:
            self.socket.sendall(b"ping")
            return self.socket.recv(4) == b"ping"
        except OSError:
            return False

    def more(self) -> bool:
        """Whether more comes."""
        try:
            return bool(self.socket.recv(65536))
        except OSError:
            return False

    def send(self) -> bool:
        """Whether more is taken."""
        try:
            self.socket.sendall(b"5\r\nbytes\r\n")
        except OSError:
            return False
        return True


def tunnel(proxy: Resolving, host: str, own: str = "") -> Agent:
    """Return an open tunnel."""
    agent = Agent(proxy, f"GET /tunnel HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}\r\n".encode(), own)
    assert agent.socket.recv(4096).startswith(b"HTTP/1.1 101 ")
    return agent


def download(proxy: Resolving, host: str) -> Agent:
    """Return a download that has begun."""
    agent = Agent(proxy, f"GET /down HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert agent.socket.recv(4096).startswith(b"HTTP/1.1 200 ")
    return agent


def upload(proxy: Resolving, host: str) -> Agent:
    """Return an upload that has begun."""
    head = f"POST /up HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Agent(proxy, head.encode())


def over_tls(proxy: Resolving, host: str) -> Agent:
    """Return a connection that Envoy takes for TLS."""
    hello = client_hello(host.encode())
    agent = Agent(proxy, hello)
    assert agent.socket.recv(len(hello))
    return agent


def rules(*entries: Mapping[str, object]) -> RuleSet:
    """Return rules."""
    return rule_set(*entries)[1]


def apply(proxy: Resolving, *entries: Mapping[str, object]) -> float:
    """Have other rules live, and return when it was begun."""
    begun = time.monotonic()
    proxy.serve(rules(*entries))
    until(proxy.serves)
    return begun


@pytest.fixture
def origin() -> Iterator[Origin]:
    """The origin of every name."""
    with closing(Origin()) as started:
        yield started


@pytest.fixture
def proxy(tmp_path: Path, release: Release) -> Iterator[Resolving]:
    """A proxy that drains for as long as ours."""
    below = ("a.below.test", "b.below.test", "a.wide.test", "b.wide.test")
    names = ("gone.test", "also.test", "kept.test", "tls.test", *below)
    with NameServer(names, OWN_LOOPBACK) as server:
        started = Resolving(tmp_path, program(release), server.port)
        started.ports |= {PORT: free_port()}
        apply(started, HTTP_RULE, TLS_RULE, *KEPT)
        yield started
        started.process.terminate()
        started.process.wait()


def test_a_removed_rule_ends_what_it_allowed(proxy: Resolving, origin: Origin) -> None:
    """Its tunnels, idle or busy, and its long requests end in time, as in TLS; those of other rules live on."""
    idle, busy, tls = tunnel(proxy, "gone.test"), tunnel(proxy, "gone.test"), over_tls(proxy, "also.test")
    gone = {"/down": download(proxy, "gone.test"), "/up": upload(proxy, "gone.test")}
    assert gone["/up"].send()
    until(lambda: {"gone.test/down", "gone.test/up", "gone.test/tunnel"} <= origin.open.keys())
    kept = tunnel(proxy, "kept.test"), tunnel(proxy, "a.below.test"), over_tls(proxy, "tls.test")
    down, up = download(proxy, "kept.test"), upload(proxy, "kept.test")
    begun = apply(proxy, *KEPT)
    assert proxy.request(b"gone.test", PORT) == b"HTTP/1.1 403 Forbidden"

    def over() -> bool:
        busy.echoes()
        gone["/up"].send()
        assert all(each.echoes() for each in kept)
        assert down.more()
        assert up.send()
        return {"gone.test/tunnel", "gone.test/down", "gone.test/up"} <= origin.ended.keys()

    until(over, WITHIN)
    assert max(origin.ended.values()) - begun < WITHIN
    assert not busy.echoes()
    for each in (idle, tls):
        each.socket.settimeout(WITHIN - DRAIN_SECONDS)
        assert not each.socket.recv(1)
    until(lambda: {name.partition("/")[0] for name in origin.ended} == {"gone.test", "tls"})
    assert all(each.echoes() for each in kept)


def test_unrelated_changes_end_nothing(proxy: Resolving, origin: Origin) -> None:
    """What is open lives on through 20 changes of rules of both protocols, and longer than a drain takes."""
    tunnels = tunnel(proxy, "kept.test"), tunnel(proxy, "a.below.test"), over_tls(proxy, "tls.test")
    down, up = download(proxy, "kept.test"), upload(proxy, "kept.test")
    for number in range(10):
        other = {"dst": f"other-{number}.test", "port": PORT}
        apply(proxy, *KEPT, {**other, "proto": "http"}, other)
        assert all(each.echoes() for each in tunnels)
        apply(proxy, *KEPT, other)
        assert down.more()
        assert up.send()
    last = apply(proxy, *KEPT)
    until(lambda: all(each.echoes() for each in tunnels) and time.monotonic() - last > OVER)
    assert down.more()
    assert up.send()
    assert not origin.ended


def test_a_changed_rule_is_another_rule(proxy: Resolving, origin: Origin) -> None:
    """With `allow_private` changed, what was open under the rule ends, and what is new goes on."""
    before, kept = tunnel(proxy, "gone.test"), tunnel(proxy, "kept.test")
    begun = apply(proxy, {**HTTP_RULE, "allow_private": True}, *KEPT)
    after = tunnel(proxy, "gone.test")
    until(lambda: "gone.test/tunnel" in origin.ended, WITHIN)
    assert origin.ended["gone.test/tunnel"] - begun < WITHIN
    assert not before.echoes()
    assert after.echoes()
    assert kept.echoes()


def test_a_denied_name_ends_what_its_subtree_allowed(proxy: Resolving, origin: Origin) -> None:
    """A rule that denies a name below a subtree ends the subtree's connections, and no others."""
    wide = {"dst": ".wide.test", "port": PORT}
    apply(proxy, *KEPT, wide)
    ending = tunnel(proxy, "a.below.test"), over_tls(proxy, "a.wide.test")
    kept = tunnel(proxy, "kept.test"), over_tls(proxy, "tls.test")
    denied = [{"dst": name, "action": "deny"} for name in ("a.below.test", "a.wide.test")]
    begun = apply(proxy, *KEPT, wide, *denied)
    assert proxy.request(b"a.below.test", PORT) == b"HTTP/1.1 403 Forbidden"
    after = tunnel(proxy, "b.below.test"), over_tls(proxy, "b.wide.test")
    until(lambda: "a.below.test/tunnel" in origin.ended, WITHIN)
    assert origin.ended["a.below.test/tunnel"] - begun < WITHIN
    for each in ending:
        each.socket.settimeout(WITHIN - DRAIN_SECONDS)
        assert not each.socket.recv(1)
    assert all(each.echoes() for each in (*after, *kept))


def test_a_denied_name_ends_what_an_outer_subtree_allowed(proxy: Resolving, origin: Origin) -> None:
    """A connection may be older than the nearer rule that allows its name by now."""
    ending, kept = tunnel(proxy, "a.below.test"), tunnel(proxy, "kept.test")
    nearer = {"dst": ".a.below.test", "proto": "http", "port": PORT}
    apply(proxy, *KEPT, nearer)
    assert ending.echoes()
    begun = apply(proxy, *KEPT, nearer, {"dst": "a.below.test", "action": "deny"})
    until(lambda: "a.below.test/tunnel" in origin.ended, WITHIN)
    assert origin.ended["a.below.test/tunnel"] - begun < WITHIN
    assert not ending.echoes()
    assert kept.echoes()


def test_a_name_s_own_address_outlives_the_rule_that_needed_it(proxy: Resolving, origin: Origin) -> None:
    """With its ssh rule removed, the http rule of a name goes on there, for what is open and what is new."""
    ssh = {"dst": "gone.test", "proto": "ssh"}
    apply(proxy, *KEPT, HTTP_RULE, ssh)
    before = tunnel(proxy, "gone.test", "gone.test")
    removed = apply(proxy, *KEPT, HTTP_RULE)
    until(lambda: before.echoes() and time.monotonic() - removed > OVER)
    after = tunnel(proxy, "gone.test", "gone.test")
    assert after.echoes()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((str(proxy.virtual["gone.test"]), 22), timeout=10)
    apply(proxy, *KEPT)
    until(lambda: not before.echoes() and not after.echoes(), WITHIN)
    until(lambda: origin.ended.keys() == {"gone.test/tunnel"})


def test_rules_that_share_a_chain(proxy: Resolving, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rules share chains, a removed one ends what shares its chain; the rest lives on."""
    monkeypatch.setattr(chains, "ALONE", 0)
    monkeypatch.setattr(chains, "SHARED", 100)
    many = [{"dst": f"n{number}.test", "proto": "http", "port": PORT} for number in range(300)]
    entries = [HTTP_RULE, *KEPT, *many]
    apply(proxy, *entries)
    named = chains.chains("http", Policy(rules(*entries)), Protocol.HTTP, PORT).names
    assert len(set(named.values())) < len(named)
    assert len({chain for each, chain in named.items() if each.name in {"gone.test", "kept.test"}}) == 2
    gone, kept = tunnel(proxy, "gone.test"), tunnel(proxy, "kept.test")
    apply(proxy, *entries[1:])
    until(lambda: "gone.test/tunnel" in origin.ended, WITHIN)
    assert not gone.echoes()
    assert kept.echoes()


def test_connections_are_not_confused(proxy: Resolving, origin: Origin) -> None:
    """Requests on one connection reach the host that each is for, though connections to origins are used again."""
    hosts = ("a.below.test", "b.below.test", "kept.test", "A.below.test")
    agent = Agent(proxy, b"")
    for number in range(40):
        host = hosts[number % len(hosts)]
        agent.socket.sendall(f"GET /{number} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = agent.socket.recv(4096)
        assert answer.endswith(f"\r\n\r\n{host}".encode()), answer
    statistics = proxy.admin("/stats?filter=cluster.http-rules.upstream_cx_total").decode()
    assert 3 <= int(statistics.rpartition(":")[2]) <= 2 * 3  # Envoy hashes what they carry in any order
    assert [host for _, host in origin.hosts] == [hosts[number % len(hosts)] for number in range(40)]


def test_idle_connections_end(tmp_path: Path, release: Release, origin: Origin) -> None:
    """What sends nothing for the time that is set is ended, and what sends something is not."""

    class Impatient(Resolving):
        idle = 2

    with NameServer(("kept.test", "tls.test"), OWN_LOOPBACK) as server:
        proxy = Impatient(tmp_path, program(release), server.port)
        try:
            proxy.ports |= {PORT: free_port()}
            apply(proxy, *KEPT)
            idle = tunnel(proxy, "kept.test"), over_tls(proxy, "tls.test")
            busy, stuck = tunnel(proxy, "kept.test"), upload(proxy, "kept.test")
            until(lambda: busy.echoes() and {"tls", "kept.test/up"} <= origin.ended.keys())
            for each in idle:
                assert not each.socket.recv(1)
            assert stuck.socket.recv(4096).startswith(b"HTTP/1.1 408 ")
        finally:
            proxy.process.terminate()
            proxy.process.wait()
