"""The page about refusals in the real Envoy, answered by a stand-in: who reaches it, and as which agent."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawker_fw.rules.own_page import PAGE
from clawker_fw.stack.release import Release
from devkit.attacks.requests import PREFACE, http2, pseudo
from devkit.envoy import Resolving, program, shipped_clusters
from devkit.waiting import until

_WAITING = 50

_AGENT = "x-clawker-fw-agent"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npage\n"


_HOLDS = "/held"
"""The path of a request that stays unanswered while its connection lasts."""


class _Answering(socketserver.ThreadingUnixStreamServer):
    """Answers every request, and records its head."""

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
        started = super().bootstrap()
        started["static_resources"]["clusters"] += shipped_clusters("page", page_socket=str(self.socket))
        return started

    def heads(self, content: bytes, port: int = 80, *, source: str = "127.0.0.1") -> tuple[str, list[str]]:
        """Return the first line of the answer, and the requests that arrive at the page."""
        self.answering.heads.clear()
        first = self.send(content, port, source=source).partition(b"\r\n")[0]
        if content.startswith(PREFACE):  # HTTP/2 settings come back before the answer
            until(lambda: self.answering.heads)
        return first.decode("latin-1"), list(self.answering.heads)

    def has_recorded_nothing(self) -> bool:
        """Whether the next record belongs to a refused request made now."""
        self.send(_request("Host: control.test"), 80)
        found: list[str] = []

        def is_written() -> bool:
            found.extend(each["name"] for each in self.records())
            return bool(found)

        until(is_written)
        return found == ["control.test"]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[_WithPage]:
    """An Envoy with rules for everything around the page's name."""
    around = {"dst": ".internal", "force": True}
    with _WithPage(tmp_path_factory.mktemp("page"), release) as started:
        started.apply({**around, "proto": "http"}, {**around, "proto": "http", "port": 8080}, around)
        yield started
    started.answering.shutdown()
    started.answering.server_close()


def _request(*lines: str, line: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([line, *lines, "Connection: close", "", ""]).encode()


_HOST = f"Host: {PAGE}"


@pytest.mark.parametrize(
    "sent",
    [
        _request(_HOST),
        _request("Host: ClawKer.INTERNAL."),
        _request(f"{_HOST}:8080"),
        _request("Host: evil.test", line=f"GET http://{PAGE}/ HTTP/1.1"),
        _request(_HOST, "X-Forwarded-For: 127.0.0.9", "X-Real-IP: 127.0.0.9", "Forwarded: for=127.0.0.9"),
        _request(_HOST, f"{_AGENT}: 127.0.0.9", f"{_AGENT.upper()}: 127.0.0.8"),
        _request(_HOST, f"Connection: {_AGENT}"),
        _request(_HOST, f"X: y\r{_AGENT}: 127.0.0.9"),
        _request(_HOST, "X-Envoy-External-Address: 127.0.0.9", "X-Envoy-Original-Dst-Host: 127.0.0.9:80"),
        http2(*pseudo(PAGE), (_AGENT, "127.0.0.9"), ("x-forwarded-for", "127.0.0.9")),
    ],
)
def test_the_page_is_told_who_asks(proxy: _WithPage, sent: bytes) -> None:
    """Whatever an agent sends, the page gets one request with the agent's real address only."""
    first, heads = proxy.heads(sent, source="127.0.0.3")
    (head,) = heads
    assert first == "HTTP/1.1 200 OK" or sent.startswith(PREFACE)
    assert [line for line in head.splitlines() if line.startswith(_AGENT)] == [f"{_AGENT}: 127.0.0.3"]
    assert head.startswith("get / http/1.1\r\n")
    assert proxy.has_recorded_nothing()


def test_requests_that_wait_are_in_nobodys_way(proxy: _WithPage) -> None:
    """However many requests of one agent wait, another agent's are answered at once."""
    head = _request(_HOST, "Content-Length: 100", line=f"POST {_HOLDS} HTTP/1.1")
    proxy.answering.heads.clear()
    with contextlib.ExitStack() as stack:
        for _ in range(_WAITING):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.ports[80])))
            held.sendall(head)
        until(lambda: len(proxy.answering.heads) == _WAITING)
        assert proxy.heads(_request(_HOST), source="127.0.0.3")[0] == "HTTP/1.1 200 OK"


def test_without_an_answer_the_agent_is_told(proxy: _WithPage) -> None:
    """If nothing answers, the agent is told to try again, and nothing is on record."""
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
