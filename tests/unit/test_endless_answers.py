"""An engine's answer without end is an error, and takes bounded memory."""

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
"""The bounds in these tests."""

IN_BETWEEN = 10 << 20
"""What the kernel, Python's buffers and the libraries may take beyond a bound."""


@dataclass
class Endless:
    """An engine that answers all but the first questions without end."""

    address: str
    piece: bytes = b"x" * 4096
    begin: bytes = b""
    chunked: bool = True
    status: int = 200
    sent: int = 0
    head: str = "{}"
    ended: threading.Event = field(default_factory=threading.Event)


def answering(made: Endless) -> type[socketserver.StreamRequestHandler]:
    """Return what answers requests like that."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # the client has had enough
                self.questions()

        def questions(self) -> None:
            while line := self.rfile.readline():
                length = 0
                while (header := self.rfile.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.rfile.read(length)
                if not line.endswith(b"HTTP/1.1\r\n"):  # a body that nobody has asked for
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
    """Such an engine. All bounds are small, so that tests are quick."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("ANSWER", "PIECE", "LINE", "HELPER", "VOLUME"):
        monkeypatch.setattr(bounds, name, SMALL)
    monkeypatch.setattr(archive.unpack, "__defaults__", (*(archive.unpack.__defaults__ or ())[:-1], SMALL))
    made = Endless(f"unix://{tmp_path / 's'}")

    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "s"), answering(made)) as server, serving(server):
        server.daemon_threads = True
        yield made


def _events(engine: DockerEngine) -> list[object]:
    with engine.events() as events:
        return list(events)


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
    "system file": lambda engine: engine.system_file("a", "/etc/x"),
    "log": _log,
    "last words": lambda engine: engine.last_words("a", 10),
    "helper": lambda engine: engine.ask_helper("a", ["probe"], 10),
    "start": lambda engine: engine.start("a"),
    "load": lambda engine: engine.load_image(iter([b"x"]), 1, lambda _: None),
    "pull": lambda engine: engine.pull_image("a.test/a@sha256:" + "0" * 64, lambda _: None),
}


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the end"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_answer_has_a_bound(question: str, chunked: bool, engine: Endless) -> None:  # noqa: FBT001 - a row
    """Reading ends a little after the bound, with an error."""
    engine.chunked = chunked
    if question in {"files", "system file"}:
        header = bytearray(512)
        header[:5], header[100:107], header[108:115], header[116:123] = (
            b"fw/x\0",
            b"0000644",
            b"0000000",
            b"0000000",
        )
        header[124:135], header[136:147], header[156:157] = b"77777777777", b"00000000000", b"0"
        header[148:156] = b"%06o\0 " % (sum(header) + 8 * 32)
        engine.begin = bytes(header)
    if question in {"log", "helper"}:
        engine.begin = struct.pack(">BxxxL", 1, (1 << 32) - 1)
    with closing(connect(engine.address, None, {})) as connected, pytest.raises(EngineError):
        QUESTIONS[question](connected)
    assert engine.ended.wait(30)
    assert engine.sent < SMALL + IN_BETWEEN


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_error_has_a_bound(question: str, engine: Endless) -> None:
    """The words of an error are an answer, too."""
    engine.status = 500
    with closing(connect(engine.address, None, {})) as connected, pytest.raises(EngineError):
        QUESTIONS[question](connected)
    assert engine.ended.wait(30)
    assert engine.sent < SMALL + IN_BETWEEN


def test_frames_of_a_helper_are_bounded_together(engine: Endless) -> None:
    """A line that never ends is not collected, however small its frames."""
    engine.piece = struct.pack(">BxxxL", 1, 4088) + b"x" * 4088
    with closing(connect(engine.address, None, {})) as connected, pytest.raises(EngineError):
        connected.ask_helper("a", ["probe"], 10)
    assert engine.ended.wait(30)
    assert engine.sent < SMALL + IN_BETWEEN


def test_events_that_are_none_end_the_stream(engine: Endless) -> None:
    """A watcher then connects again, as after any other end."""
    with closing(connect(engine.address, None, {})) as connected:
        assert _events(connected) == []
    assert engine.ended.wait(30)
    assert engine.sent < SMALL + IN_BETWEEN


def test_a_volume_of_endless_entries_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty files and folders are counted, because each takes memory here."""
    monkeypatch.setattr(bounds, "ENTRIES", 50)
    header = bytearray(512)
    header[:5], header[100:107], header[108:115], header[116:123] = b"fw/x\0", b"0000755", b"0000000", b"0000000"
    header[124:135], header[136:147], header[156:157] = b"00000000000", b"00000000000", b"5"
    header[148:156] = b"%06o\0 " % (sum(header) + 8 * 32)
    with pytest.raises(EngineError, match="more than 50"):
        archive.unpack(itertools.repeat(bytes(header)))
