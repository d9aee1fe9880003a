"""Every refusal leaves one line, with its reason, within a second; a flood of them leaves room for others'."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.container import REFUSED_NAME
from clawker_fw.stack.release import Release
from devkit.attacks.requests import http2, pseudo
from devkit.dns import NameServer
from devkit.envoy import CHECKER, WRITTEN_WITHIN, Resolving, program
from devkit.hellos import client_hello
from devkit.programs import free_port
from devkit.stacks import rule_set
from devkit.waiting import until

TLS, HTTP = 8080, 80
RULES = rule_set(
    {"dst": ".there.test", "port": TLS},
    {"dst": ".there.test", "port": HTTP, "proto": "http"},
    {"dst": "no.there.test", "action": "deny"},
)[1]
TLS_HANDSHAKE = 0x16
ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
"""The alert (RFC 8446, section 6.2)."""
NOBODY = "127.0.0.3"
"""Where the names are that can be looked up: nobody listens there."""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Resolving]:
    """A proxy whose log is looked at."""
    folder = tmp_path_factory.mktemp("records")
    with (
        NameServer(("a.there.test",), NOBODY) as names,
        Resolving(folder, program(release), names.port) as started,
    ):
        started.ports |= {TLS: free_port(), HTTP: free_port()}
        started.obey(RULES)
        yield started


def request(head: str, *headers: str) -> bytes:
    """Return a request with nothing added to it."""
    return "\r\n".join([head, *headers, "", ""]).encode("latin-1")


def get(host: str, *headers: str) -> bytes:
    return request("GET / HTTP/1.1", f"Host: {host}", *headers)


LONG = "x" * 2000
FORGING = request('GET /%0a{"reason":"forged"}" HTTP/1.1', "Host: y.test")
REFUSED: dict[str, tuple[int, bytes, Reason, str | None]] = {
    "a denied server name": (TLS, client_hello(b"no.there.test"), Reason.DENIED, "no.there.test"),
    "a backslash in a server name": (TLS, client_hello(b"x\\.w.test"), Reason.BAD_NAME, "invalid:x_.w.test"),
    "a host that does not answer": (TLS, client_hello(b"a.there.test"), Reason.UNREACHABLE, "a.there.test"),
    "neither TLS nor HTTP": (HTTP, b"\0\1\2\3 nothing\r\n\r\n", Reason.BAD_REQUEST, None),
    "a host without a rule": (HTTP, request("GET /p?q=1 HTTP/1.1", "Host: y.test"), Reason.NO_RULE, "y.test"),
    "headers that are too long": (HTTP, get("a.there.test", f"X: {LONG * 30}"), Reason.LIMIT, None),
    "headers that forge a line": (HTTP, FORGING, Reason.NO_RULE, "y.test"),
}
"""What Envoy writes down of these. That of others is in `ATTACKS`."""


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_on_record(proxy: Resolving, what: str) -> None:
    """There is one line, with who, where, and why."""
    port, content, reason, name = REFUSED[what]
    proxy.records()
    answer = proxy.send(content, port)
    (found,) = until(proxy.records, WRITTEN_WITHIN)
    if content[0] == TLS_HANDSHAKE and not reason.failed:
        assert answer == ACCESS_DENIED
    proxy.send(get("next.test"), HTTP)
    (after,) = until(proxy.records, WRITTEN_WITHIN)
    assert after["name"] == "next.test"
    assert (found["reason"], found["name"]) == (reason, name)
    assert found["port"] in {port, proxy.ports[port]}  # beyond the decision, Envoy knows the rule's port only
    assert found["source"].startswith("127.0.0.1:")
    assert found["protocol"] == ("tls" if content[0] == TLS_HANDSHAKE else "http")
    assert "?" not in (found.get("path") or "")


@pytest.mark.parametrize(
    ("content", "port"),
    [
        (client_hello(REFUSED_NAME.encode()), TLS),
        (client_hello(REFUSED_NAME.encode()), HTTP),
        (get(REFUSED_NAME), HTTP),
        (request(f"GET http://{REFUSED_NAME}/ HTTP/1.1", "Host: a.there.test"), HTTP),
        (http2(*pseudo(REFUSED_NAME)), HTTP),
    ],
)
def test_what_the_firewall_asks_itself_is_not_on_record(proxy: Resolving, content: bytes, port: int) -> None:
    """Its own check that agents are refused leaves no line. An agent that uses the same name is on record."""
    proxy.records()
    for source in (str(CHECKER), "127.0.0.1", "127.0.0.90"):
        proxy.send(content, port, source=source)
    found: list[dict[str, Any]] = []

    def are_written() -> bool:
        found.extend(proxy.records())
        return len(found) >= len(("127.0.0.1", "127.0.0.90"))

    until(are_written, WRITTEN_WITHIN)
    assert [each["source"].partition(":")[0] for each in found] == ["127.0.0.1", "127.0.0.90"]
    assert {(each["name"], each["reason"]) for each in found} == {(REFUSED_NAME, Reason.NO_RULE)}


def test_who_is_on_record_on_one_connection(proxy: Resolving) -> None:
    """Requests that lead nowhere are on record one by one, each with who has asked, not who was first."""
    proxy.records()
    content = get("q.there.test")
    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        answer = proxy.send(content, HTTP, source=source)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"clawker-fw: no answer from this host" in answer
        (found,) = until(proxy.records, WRITTEN_WITHIN)
        assert found["source"].startswith(f"{source}:")
        assert (found["reason"], found["port"]) == (Reason.NO_ADDRESS, HTTP)


def test_who_never_says_what_it_wants(proxy: Resolving) -> None:
    """A hello, and headers, that don't end are refused after 10 s, and are on record."""
    proxy.records()
    started = time.monotonic()
    unfinished = {TLS: client_hello(b"a.there.test")[:20], HTTP: b"GET / HTTP/1.1\r\nHo"}
    open_ = [socket.create_connection(("127.0.0.1", proxy.ports[port]), timeout=20) for port in unfinished]
    for connection, content in zip(open_, unfinished.values(), strict=True):
        connection.sendall(content)
    found = until(proxy.records)
    if len(found) < len(unfinished):
        found += until(proxy.records, WRITTEN_WITHIN)
    assert {(each["port"], each["reason"]) for each in found} == {
        (proxy.ports[port], Reason.TIMEOUT) for port in unfinished
    }
    assert 9 < time.monotonic() - started < 10 + 2 * WRITTEN_WITHIN
    for connection in open_:
        connection.close()


def test_names_and_paths_are_cut(proxy: Resolving) -> None:
    """What an agent has chosen takes no more than 255 octets of a line, and a method no more than 32."""
    proxy.records()
    proxy.send(request(f"GET /{LONG} HTTP/1.1", f"Host: {LONG}"), HTTP)
    (found,) = until(proxy.records, WRITTEN_WITHIN)
    assert (len(found["name"]), len(found["path"])) == (255, 255)
    proxy.send(http2(*pseudo("y.test", method="M" * 100)), HTTP)
    (found,) = until(proxy.records, WRITTEN_WITHIN)
    assert found["method"] == "M" * 32
