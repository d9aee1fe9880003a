"""The page about refusals in the real Envoy: who is led to it, and whose request it is said to be.

Who answers is a stand-in that keeps what it gets; `fwctl record` is tested with Go and on an engine.
"""

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawker_fw.rules.own_page import PAGE
from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.envoy import routes
from clawker_fw.stack.release import Release
from devkit.attacks.requests import PREFACE, http2, pseudo
from devkit.envoy import Resolving, program
from devkit.stacks import rule_set
from devkit.waiting import until

_WAITING = 50

_AGENT = "x-clawker-fw-agent"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npage\n"


_HOLDS = "/held"
"""The path of a request that is not answered while its connection lasts."""


class _Answering(socketserver.ThreadingUnixStreamServer):
    """Answers every request, and keeps its head."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path) -> None:
        self.heads: list[str] = []
        super().__init__(str(path), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Answering

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.rfile.readline()
        self.server.heads.append(head.decode().lower())
        if _HOLDS.encode() not in head:
            self.wfile.write(_ANSWER)
        else:
            self.rfile.read()


class _WithPage(Resolving):
    """An Envoy whose page is answered in its own folder."""

    def __init__(self, folder: Path, release: Release) -> None:
        self.socket = folder / "page.sock"
        self.answering = _Answering(self.socket)
        threading.Thread(target=self.answering.serve_forever, daemon=True).start()
        super().__init__(folder, program(release), 1)

    def bootstrap(self) -> dict[str, object]:
        """Return what it is started with, with the cluster of the page."""
        started = super().bootstrap()
        leading = json.loads(json.dumps(routes.page_cluster()).replace(routes.PAGE_SOCKET, str(self.socket)))
        started["static_resources"]["clusters"].append(leading)
        return started

    def heads(self, content: bytes, port: int = 80, *, source: str = "127.0.0.1") -> tuple[str, list[str]]:
        """Return the first line that comes back for what is sent, and the requests that arrive at the page."""
        self.answering.heads.clear()
        first = self.send(content, port, source=source).partition(b"\r\n")[0]
        if content.startswith(PREFACE):  # what comes back begins with settings, before there is an answer
            until(lambda: self.answering.heads)
        return first.decode("latin-1"), list(self.answering.heads)

    def has_recorded_nothing(self) -> bool:
        """Whether the next record is that of a request that no rule allows, which is made now."""
        self.send(_request("Host: control.test"), 80)
        found: list[str] = []

        def is_written() -> bool:
            found.extend(each["name"] for each in self.records())
            return bool(found)

        until(is_written)
        return found == ["control.test"]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[_WithPage]:
    """An Envoy with rules for everything around the name of the page."""
    started = _WithPage(tmp_path_factory.mktemp("page"), release)
    around = {"dst": ".internal", "force": True}
    more = [{**around, "proto": "http"}, {**around, "proto": "http", "port": 8080}, around]
    started.serve(rule_set(*more)[1])
    until(started.serves)
    yield started
    started.process.kill()
    started.process.wait()
    started.answering.shutdown()
    started.answering.server_close()


def _request(*lines: str, line: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([line, *lines, "Connection: close", "", ""]).encode()


_HOST = f"Host: {PAGE}"


@pytest.mark.parametrize(
    "sent",
    [
        _request(_HOST),
        _request("Host: ClawKer.INTERNAL"),
        _request(f"{_HOST}:80"),
        _request(f"{_HOST}:8080"),
        _request(f"{_HOST}."),
        _request("Host: evil.test", line=f"GET http://{PAGE}/ HTTP/1.1"),
        _request(_HOST, "X-Forwarded-For: 127.0.0.9", "X-Real-IP: 127.0.0.9", "Forwarded: for=127.0.0.9"),
        _request(_HOST, f"{_AGENT}: 127.0.0.9"),
        _request(_HOST, f"{_AGENT}: 127.0.0.9", f"{_AGENT.upper()}: 127.0.0.8"),
        _request(_HOST, f"Connection: {_AGENT}"),
        _request(_HOST, f"X: y\r{_AGENT}: 127.0.0.9"),
        _request(_HOST, "X-Envoy-External-Address: 127.0.0.9", "X-Envoy-Original-Dst-Host: 127.0.0.9:80"),
        http2(*pseudo(PAGE)),
        http2(*pseudo(PAGE), (_AGENT, "127.0.0.9"), ("x-forwarded-for", "127.0.0.9")),
    ],
)
def test_the_page_is_told_who_asks(proxy: _WithPage, sent: bytes) -> None:
    """Whatever an agent sends, the page gets one request, with the address that has connected and no other."""
    first, heads = proxy.heads(sent, source="127.0.0.3")
    (head,) = heads
    assert first == "HTTP/1.1 200 OK" or sent.startswith(PREFACE)
    assert [line for line in head.splitlines() if line.startswith(_AGENT)] == [f"{_AGENT}: 127.0.0.3"]
    assert head.startswith("get / http/1.1\r\n")
    assert proxy.has_recorded_nothing()


@pytest.mark.parametrize(
    "sent",
    [
        _request(_HOST, "Content-Length: 5", line="POST / HTTP/1.1") + b"GET /",
        _request(_HOST, line="GET /../../etc/passwd HTTP/1.1"),
        _request(_HOST, line="GET /?agent=10.213.0.9 HTTP/1.1"),
        _request(_HOST, line=f"GET /?{'a' * 30_000} HTTP/1.1"),
        _request(_HOST, "Upgrade: websocket", "Sec-WebSocket-Key: eA==", line="GET / HTTP/1.1"),
        _request(_HOST, "Transfer-Encoding: chunked", line="POST / HTTP/1.1") + b"0\r\n\r\n",
    ],
)
def test_other_requests_are_the_pages_to_refuse(proxy: _WithPage, sent: bytes) -> None:
    """Another method, path or query arrives at the page as one request of the agent, and leaves no record."""
    _, heads = proxy.heads(sent, source="127.0.0.3")
    assert len(heads) == 1
    assert f"{_AGENT}: 127.0.0.3\r\n" in heads[0]
    assert proxy.has_recorded_nothing()


@pytest.mark.parametrize(
    "sent",
    [
        _request(_HOST, "Content-Length: 4", "Transfer-Encoding: chunked", line="POST / HTTP/1.1")
        + b"0\r\n\r\nGET / HTTP/1.1\r\nHost: clawker.internal\r\n\r\n",
        _request(_HOST, "Content-Length: 0", "Content-Length: 44", line="POST / HTTP/1.1"),
        _request(_HOST, "Transfer-Encoding: chunked, identity", line="POST / HTTP/1.1"),
        _request(_HOST, "Host: evil.test"),
        _request(_HOST, line=f"CONNECT {PAGE}:80 HTTP/1.1"),
        _request(_HOST, line="GET / HTTP/1.1\r\n X-Clawker-Fw-Agent: 127.0.0.9"),
    ],
)
def test_what_can_be_read_in_two_ways_does_not_arrive(proxy: _WithPage, sent: bytes) -> None:
    """Requests within requests, two hosts and tunnels are refused by Envoy, and the page gets nothing."""
    first, heads = proxy.heads(sent, source="127.0.0.3")
    assert heads == []
    assert first.split()[1:2] in ([], ["400"], ["403"], ["404"], ["501"])
    until(lambda: [each["reason"] in {Reason.BAD_NAME, Reason.BAD_REQUEST} for each in proxy.records()] == [True])


def test_requests_that_wait_are_in_nobodys_way(proxy: _WithPage) -> None:
    """However many requests of one agent wait for an answer, another agent's are answered at once."""
    head = _request(_HOST, "Content-Length: 100", line=f"POST {_HOLDS} HTTP/1.1")
    proxy.answering.heads.clear()
    with contextlib.ExitStack() as stack:
        for _ in range(_WAITING):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.ports[80])))
            held.sendall(head)
        until(lambda: len(proxy.answering.heads) == _WAITING)
        assert proxy.heads(_request(_HOST), source="127.0.0.3")[0] == "HTTP/1.1 200 OK"


def test_the_name_leads_nowhere_else(proxy: _WithPage) -> None:
    """On another port and in TLS the name is refused and on record, whatever rules say about all around it."""
    first, heads = proxy.heads(_request(_HOST), 8080)
    assert (first, heads) == ("HTTP/1.1 403 Forbidden", [])
    until(lambda: [each["reason"] for each in proxy.records()] == ["no-rule"])
    assert proxy.hello(PAGE.encode(), 443)[:1] != b"\x16"
    until(lambda: [each["reason"] for each in proxy.records()] == ["denied"])
    first, heads = proxy.heads(_request("Host: other.internal"))
    assert heads == []
    until(lambda: [each["name"] for each in proxy.records()] == ["other.internal"])


def test_without_an_answer_the_agent_is_told(proxy: _WithPage) -> None:
    """While nobody answers, the agent is told to try again, and nothing is on record."""
    proxy.socket.rename(away := proxy.socket.with_name("away"))
    try:
        content = b""
        for _ in range(12):  # connections that are still open may be used first
            content = proxy.send(_request(_HOST), 80)
    finally:
        away.rename(proxy.socket)
    assert content.startswith(b"HTTP/1.1 503 ")
    assert content.endswith(b"clawker-fw: this page can't be read just now: try again\n")
    assert proxy.has_recorded_nothing()
