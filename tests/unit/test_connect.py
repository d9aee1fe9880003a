"""Connecting: what is asked of an engine, and what becomes of its answers."""

import json
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.engine.docker import connect
from clawker_fw.errors import EngineError

VERSION = {"Version": "28.5.2", "ApiVersion": "1.51", "Os": "linux", "Arch": "amd64", "Components": []}
INFO: dict[str, Any] = {"MemoryLimit": True, "PidsLimit": True, "KernelVersion": "6.1.0"}


@dataclass
class Engine:
    """Something that answers at a socket. `asked` are the paths, in order."""

    address: str
    answers: dict[str, Any]
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that fits, until a test changes its answers."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    socket = tmp_path / "s"
    made = Engine(f"unix://{socket}", {"/version": dict(VERSION), "/v1.51/info": dict(INFO)})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            found = made.answers.get(self.path)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append(self.path)
            found = made.answers[self.path]
            self.wfile.write(found)

        def address_string(self) -> str:
            return "a socket has no address"

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - http.server's own
            """Be silent."""

    with socketserver.ThreadingUnixStreamServer(str(socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def refused(address: str) -> EngineError:
    """Return the error of connecting to an engine."""
    with pytest.raises(EngineError) as caught:
        connect(address, None, {})
    assert caught.value.exit_code == 4
    return caught.value


def test_two_questions_are_asked(engine: Engine) -> None:
    """What it is, and what it has, in the engine's own version of the API: nothing more, since each takes time."""
    with closing(connect(engine.address, None, {})) as connected:
        assert engine.asked == ["/version", "/v1.51/info"]
        assert connected.facts().version == "28.5.2"
        assert connected.address == engine.address


@pytest.mark.parametrize(
    ("path", "said", "code"),
    [
        ("/version", {"ApiVersion": "1.40"}, "engine-too-old"),
        ("/version", {"Os": "windows"}, "engine-not-linux"),
        ("/version", {"Components": [{"Name": "Podman Engine", "Version": "5.4.2"}]}, "engine-is-podman"),
        ("/v1.51/info", {"SecurityOptions": ["name=rootless"]}, "engine-is-rootless"),
        ("/v1.51/info", {"MemoryLimit": False}, "engine-lacks"),
    ],
)
def test_what_does_not_fit_is_refused(path: str, said: dict[str, Any], code: str, engine: Engine) -> None:
    """As soon as it is known: one that is too old is asked nothing else."""
    engine.answers[path] |= said
    assert refused(engine.address).code == code
    assert engine.asked[-1] == path


@pytest.mark.parametrize("answer", [None, b"<html>", b"[]", b""])
def test_what_is_no_engine_is_not_reached(answer: bytes | None, engine: Engine) -> None:
    """Something that answers otherwise is an engine that can't be reached, and it is said who named it."""
    engine.answers["/version"] = answer
    error = refused(engine.address)
    assert error.code == "engine-unreachable"
    assert "named by --host" in error.context


@pytest.mark.parametrize(
    "auths",
    [
        {"registry.test": "no mapping"},
        {"registry.test": {"auth": "!"}},
        {"registry.test": {"auth": "bm8tY29sb24="}},
    ],
)
def test_credentials_that_make_no_sense(auths: dict[str, Any], engine: Engine, tmp_path: Path) -> None:
    """They are told as what they are, not as an engine that can't be reached."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert refused(engine.address).code == "docker-config-invalid"
    assert engine.asked == []


def test_output_that_comes_with_the_head_of_its_response(engine: Engine) -> None:
    """The answer of a quick program may arrive at once with the engine's, when this machine is busy."""

    def frame(stream: int, content: bytes) -> bytes:
        return struct.pack(">BxxxL", stream, len(content)) + content

    began = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
    upgraded = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    written = frame(1, b'{"released": ') + frame(2, b"a word") + frame(1, b"true}\n")
    engine.answers["/v1.51/containers/a/exec"] = began + b'{"Id": "e1"}'
    engine.answers["/v1.51/exec/e1/start"] = upgraded + written
    engine.answers["/v1.51/exec/e1/json"] = {"ExitCode": 0}
    said: list[Any] = []
    with closing(connect(engine.address, None, {})) as connected:
        connected.run_helper("a", ["release"], said.append)
    assert said == [{"released": True}]
