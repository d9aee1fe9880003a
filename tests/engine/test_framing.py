"""HTTP requests that can be read in two ways, with one name for the firewall and another for the origin.

Each row is sent byte for byte. The responses prove nothing; the origins' logs do. No request of an agent may reach
the origin whose name no rule allows, or reach the allowed one under another name.
"""

from dataclasses import dataclass

import pytest

from devkit.firewall import Firewall
from devkit.peers import Answer, Peer, Peers
from devkit.witness import Witnesses

ALLOWED, EVIL = "h.test", "evil.test"

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def request(line: str, *headers: str) -> bytes:
    """Return a request without a body, after which the connection ends."""
    return "\r\n".join([line, *headers, "Connection: close", "", ""]).encode()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http2(*fields: tuple[str, str]) -> bytes:
    """Return a request over HTTP/2, each field as a literal (RFC 7541, section 6.2.2)."""
    block = b"".join(b"\0" + b"".join(bytes([len(word)]) + word.encode() for word in field) for field in fields)
    settings, end_of_all = frame(4, 0, 0, b""), 0x4 | 0x1
    return PREFACE + settings + frame(1, end_of_all, 1, block)


def pseudo(authority: str, path: str = "/") -> tuple[tuple[str, str], ...]:
    """Return the beginning of every request over HTTP/2."""
    return (":method", "GET"), (":scheme", "http"), (":path", path), (":authority", authority)


UPGRADE = ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")

ARRIVES = {
    "an ordinary request": request("GET / HTTP/1.1", f"Host: {ALLOWED}"),
    "a host in odd case": request("GET / HTTP/1.1", "Host: H.TesT"),
    "a host with its port": request("GET / HTTP/1.1", f"Host: {ALLOWED}:80"),
    "a host with another port": request("GET / HTTP/1.1", f"Host: {ALLOWED}:8080"),
    "a host with a dot at its end": request("GET / HTTP/1.1", f"Host: {ALLOWED}."),
    "the absolute form": request(f"GET http://{ALLOWED}/ HTTP/1.1", f"Host: {ALLOWED}"),
    "the absolute form against the host": request(f"GET http://{ALLOWED}/ HTTP/1.1", f"Host: {EVIL}"),
    "the absolute form with userinfo": request(f"GET http://{EVIL}@{ALLOWED}/ HTTP/1.1", f"Host: {ALLOWED}"),
    "a forwarded host": request(
        "GET / HTTP/1.1", f"Host: {ALLOWED}", f"X-Forwarded-Host: {EVIL}", f"X-Envoy-Original-Host: {EVIL}"
    ),
    "a path that is a URL": request(f"GET /http://{EVIL}/ HTTP/1.1", f"Host: {ALLOWED}"),
    "HTTP/2 with prior knowledge": http2(*pseudo(ALLOWED)),
}
"""Requests that reach the allowed origin, always under its own name."""

REFUSED = {
    "another host": request("GET / HTTP/1.1", f"Host: {EVIL}"),
    "two hosts, the allowed one first": request("GET / HTTP/1.1", f"Host: {ALLOWED}", f"Host: {EVIL}"),
    "two hosts, the allowed one last": request("GET / HTTP/1.1", f"Host: {EVIL}", f"Host: {ALLOWED}"),
    "the same host twice": request("GET / HTTP/1.1", f"Host: {ALLOWED}", f"Host: {ALLOWED}"),
    "two hosts in one header": request("GET / HTTP/1.1", f"Host: {ALLOWED}, {EVIL}"),
    "a host that is continued": request("GET / HTTP/1.1", f"Host: {ALLOWED}", f" {EVIL}"),
    "a space before the colon": request("GET / HTTP/1.1", f"Host : {ALLOWED}", f"Host: {EVIL}"),
    "a bare line feed": f"GET / HTTP/1.1\nHost: {EVIL}\nHost: {ALLOWED}\n\n".encode(),
    "no host": request("GET / HTTP/1.1"),
    "an empty host": request("GET / HTTP/1.1", "Host:"),
    "no host, as it was once": b"GET / HTTP/1.0\r\n\r\n",
    "the absolute form of another host": request(f"GET http://{EVIL}/ HTTP/1.1", f"Host: {ALLOWED}"),
    "the absolute form with the allowed host as userinfo": request(
        f"GET http://{ALLOWED}@{EVIL}/ HTTP/1.1", f"Host: {ALLOWED}"
    ),
    "userinfo before the host": request("GET / HTTP/1.1", f"Host: {ALLOWED}@{EVIL}"),
    "another host as userinfo": request("GET / HTTP/1.1", f"Host: {EVIL}@{ALLOWED}"),
    "a host and a path": request("GET / HTTP/1.1", f"Host: {EVIL}/{ALLOWED}"),
    "a host and a query": request("GET / HTTP/1.1", f"Host: {EVIL}?.{ALLOWED}"),
    "a host and a fragment": request("GET / HTTP/1.1", f"Host: {EVIL}#.{ALLOWED}"),
    "a port that is a host": request("GET / HTTP/1.1", f"Host: {EVIL}:80:{ALLOWED}"),
    "an encoded dot": request("GET / HTTP/1.1", "Host: evil%2etest"),
    "two dots at the end": request("GET / HTTP/1.1", f"Host: {ALLOWED}.."),
    "a space after the host": request("GET / HTTP/1.1", f"Host: {ALLOWED} {EVIL}"),
    "an address": request("GET / HTTP/1.1", "Host: 127.0.0.1"),
    "CONNECT": request(f"CONNECT {ALLOWED}:80 HTTP/1.1", f"Host: {ALLOWED}:80"),
    "CONNECT to another host": request(f"CONNECT {EVIL}:80 HTTP/1.1", f"Host: {ALLOWED}"),
    "CONNECT against the host": request(f"CONNECT {ALLOWED}:80 HTTP/1.1", f"Host: {EVIL}"),
    "HTTP/2 to another host": http2(*pseudo(EVIL)),
    "HTTP/2 with a host that is another": http2(*pseudo(EVIL), ("host", ALLOWED)),
    "HTTP/2 with two authorities": http2(*pseudo(ALLOWED), (":authority", EVIL)),
    "HTTP/2 that connects": http2((":method", "CONNECT"), (":authority", f"{EVIL}:80")),
    "HTTP/2 with userinfo": http2(*pseudo(f"{ALLOWED}@{EVIL}")),
    "an upgrade of another host": request("GET / HTTP/1.1", f"Host: {EVIL}", *UPGRADE),
}
"""Requests that reach no origin."""


@dataclass(frozen=True)
class Site:
    """An agent that uses Envoy's address, and the two origins whose logs are evidence."""

    agent: Peer
    envoy: str
    witnesses: Witnesses

    def send(self, *sent: bytes) -> Answer:
        """Send bytes to Envoy's port for HTTP."""
        return self.agent.ask("raw", f"{self.envoy}:80", "--hex", b"".join(sent).hex(), "--timeout", "400ms")


@pytest.fixture(scope="module")
def site(shared: Firewall, module_peers: Peers) -> Site:
    """Two origins on the egress network. Envoy can resolve both, and one is allowed."""
    made = [
        shared.origin(module_peers, [name], "--name", name, "--http", "80,8080", "--https", "443", "--tell")
        for name in (ALLOWED, EVIL)
    ]
    envoy = shared.status()["siblings"][0]["address"]
    agent = shared.agent(module_peers)
    before = shared.settings.read_text()
    shared.write(*({"dst": name, "proto": "http", "allow_private": True} for name in (ALLOWED, EVIL)))
    shared.call("reload").expect()
    for name, origin in zip((ALLOWED, EVIL), made, strict=True):
        assert agent.get(f"http://{name}/").ok
        assert [event["host"] for event in origin.said() if event["event"] == "request"] == [name]
    shared.settings.write_text(before)
    shared.call("reload").expect()
    return Site(agent, envoy, Witnesses(made))


@pytest.mark.parametrize("row", ARRIVES)
def test_what_arrives_is_for_the_allowed_origin(row: str, site: Site) -> None:
    """The allowed origin is reached at its port under its own name, and the other one is not."""
    seen = site.witnesses.watch(lambda: site.send(ARRIVES[row]), site.agent, f"http://{ALLOWED}")
    assert [(each["name"], each["host"].lower(), each["port"]) for each in seen.requests] == [
        (ALLOWED, ALLOWED, 80)
    ]
    assert EVIL not in {each["name"] for each in seen.events}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused_reaches_nobody(row: str, site: Site) -> None:
    """No origin is connected to, and an ordinary request afterwards arrives."""
    site.witnesses.refused(lambda: site.send(REFUSED[row]), site.agent, f"http://{ALLOWED}")


SMUGGLED = request("GET /smuggled HTTP/1.1", f"Host: {EVIL}")

BEHIND = {
    "a body that is longer than it says": request("POST / HTTP/1.1", f"Host: {ALLOWED}", "Content-Length: 0"),
    "two lengths": (
        f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n"
    ).encode(),
    "a length and chunks": (
        f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: {len(SMUGGLED) + 5}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ).encode(),
    "chunks that are called otherwise": (
        f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
    ).encode(),
    "a second request": f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode(),
    "an upgrade to HTTP/2": (
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        + "\r\n".join(UPGRADE)
        + "\r\n\r\n"
    ).encode(),
    "an upgrade to WebSocket": (
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode(),
}
"""Requests to the allowed origin, followed by another request."""


@pytest.mark.parametrize("row", BEHIND)
def test_what_comes_behind_is_a_request_of_its_own(row: str, site: Site) -> None:
    """However the first request is read, the second one reaches neither origin under the other's name."""
    seen = site.witnesses.watch(lambda: site.send(BEHIND[row], SMUGGLED), site.agent, f"http://{ALLOWED}")
    assert {each["name"] for each in seen.events} <= {ALLOWED}
    assert {each["host"] for each in seen.requests} <= {ALLOWED}
    assert "/smuggled" not in {each["target"] for each in seen.requests}
