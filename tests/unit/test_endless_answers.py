"""Endless answers of an engine are an error and use bounded memory."""

import itertools
import json
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clawker_fw.engine import archive, bounds
from clawker_fw.engine.docker import DockerEngine, connect
from clawker_fw.errors import EngineError
from tests.unit.test_connect import INFO, VERSION, serving

SMALL = 1 << 18

IN_BETWEEN = 10 << 20
"""Bytes that the kernel, Python's buffers and the libraries may use beyond a bound."""


@dataclass
class Endless:
    """An engine whose answers never end, except the first ones."""

    address: str
    piece: bytes = b"x" * 4096
    begin: bytes = b""
    chunked: bool = True
    status: int = 200
    sent: int = 0
    head: str = "{}"
    ended: threading.Event = field(default_factory=threading.Event)


def answering(made: Endless) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # the client has closed the connection
                self.questions()

        def questions(self) -> None:
            while line := self.rfile.readline():
                length = 0
                while (header := self.rfile.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.rfile.read(length)
                if not line.endswith(b"HTTP/1.1\r\n"):  # a body that was not requested
                    return
                self.answer(line.decode().split()[1])

        def answer(self, path: str) -> None:
            known = {"/version": VERSION, "/v1.51/info": INFO, "/v1.51/containers/a/exec": {"Id": "e"}}.get(path)
            if known is not None:
                body = json.dumps(known).encode()
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                return
            how = b"Transfer-Encoding: chunked" if made.chunked else b"Connection: close"
            self.wfile.write(b"HTTP/1.1 %d Said\r\n%b\r\n" % (made.status, how))
            self.wfile.write(
                b"X-Docker-Container-Path-Stat: eyJsaW5rVGFyZ2V0IjoiIiwibW9kZSI6MCwic2l6ZSI6MX0=\r\n\r\n"
            )
            try:
                for piece in itertools.chain([made.begin] if made.begin else [], itertools.repeat(made.piece)):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if made.chunked else piece)
                    made.sent += len(piece)
            except OSError:
                made.ended.set()

    return Handler


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endless]:
    """An endless engine, with small bounds so that tests are quick."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("ANSWER", "PIECE", "LINE", "HELPER", "VOLUME"):
        monkeypatch.setattr(bounds, name, SMALL)
    monkeypatch.setattr(archive.unpack, "__defaults__", (*(archive.unpack.__defaults__ or ())[:-1], SMALL))
    made = Endless(f"unix://{tmp_path / 's'}")

    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "s"), answering(made)) as server, serving(server):
        server.daemon_threads = True
        yield made
        assert made.ended.wait(30)
        assert made.sent < SMALL + IN_BETWEEN


def _log(engine: DockerEngine) -> int:
    with engine.log("a", None) as log:
        return sum(len(lines) for lines in log)


QUESTIONS: dict[str, Callable[[DockerEngine], object]] = {
    "containers": lambda engine: engine.listing(),
    "container": lambda engine: engine.container("a"),
    "networks": lambda engine: engine.networks(),
    "image": lambda engine: engine.image("a"),
    "volumes": lambda engine: engine.volumes(),
    "files": lambda engine: engine.files("a"),
    "log": _log,
    "last words": lambda engine: engine.last_words("a", 10),
    "helper": lambda engine: engine.ask_helper("a", ["probe"], 10),
    "start": lambda engine: engine.start("a"),
    "load": lambda engine: engine.load_image(iter([b"x"]), 1, lambda _: None),
    "pull": lambda engine: engine.pull_image("a.test/a@sha256:" + "0" * 64, lambda _: None),
}


def header(kind: bytes, size: int) -> bytes:
    made = bytearray(512)
    made[:5], made[100:107], made[108:115], made[116:123] = b"fw/x\0", b"0000755", b"0000000", b"0000000"
    made[124:135], made[136:147], made[156:157] = b"%011o" % size, b"00000000000", kind
    made[148:156] = b"%06o\0 " % (sum(made) + 8 * 32)
    return bytes(made)


@pytest.mark.parametrize("how", ["chunked", "until the end", "an error"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_answer_has_a_bound(question: str, how: str, engine: Endless) -> None:
    """Reading stops with an error soon after the bound, even for an error's text."""
    engine.chunked = how != "until the end"
    engine.status = 500 if how == "an error" else 200
    if question in {"files", "system file"}:
        engine.begin = header(b"0", 0o77777777777)
    if question in {"log", "helper"}:
        engine.begin = struct.pack(">BxxxL", 1, (1 << 32) - 1)
    with closing(connect(engine.address, None, {})) as connected, pytest.raises(EngineError):
        QUESTIONS[question](connected)


def test_frames_of_a_helper_are_bounded_together(engine: Endless) -> None:
    """An endless line is not collected, however small its frames."""
    engine.piece = struct.pack(">BxxxL", 1, 4088) + b"x" * 4088
    with closing(connect(engine.address, None, {})) as connected, pytest.raises(EngineError):
        connected.ask_helper("a", ["probe"], 10)


def test_events_that_are_none_end_the_stream(engine: Endless) -> None:
    """Invalid events end the stream, and a watcher reconnects as usual."""
    with closing(connect(engine.address, None, {})) as connected, connected.events() as events:
        assert list(events) == []


def test_a_volume_of_endless_entries_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty files and folders count against the bound, because each needs memory."""
    monkeypatch.setattr(bounds, "ENTRIES", 50)
    with pytest.raises(EngineError, match="more than 50"):
        archive.unpack(itertools.repeat(header(b"5", 0)))
