"""Connecting to an engine: requests sent, and errors for its answers."""

import json
import os
import socket
import socketserver
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clawker_fw.background import in_background
from clawker_fw.engine import failures, outputs, transport
from clawker_fw.engine.docker import DockerEngine, connect
from clawker_fw.engine.locate import locate
from clawker_fw.errors import EngineError, NotFoundError, SettingsError
from clawker_fw.stack import labels
from clawker_fw.stack.image_tar import BuiltImage, Entry
from devkit.certificates import certify
from devkit.waiting import until
from tests.unit.test_log_stream import frame

VERSION = {"Version": "28.5.2", "ApiVersion": "1.51", "Os": "linux", "Arch": "amd64", "Components": []}
NOBODY = 65534
INFO: dict[str, Any] = {"MemoryLimit": True, "PidsLimit": True, "KernelVersion": "6.1.0"}


@dataclass
class Engine:
    """A server on a socket. `asked` holds the requested paths in order, `gates` the header sent with each."""

    address: str
    answers: dict[str, Any]
    asked: list[str] = field(default_factory=list)
    gates: list[str | None] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    answering: threading.Event = field(default_factory=threading.Event)


def answering(made: Engine) -> type[BaseHTTPRequestHandler]:
    """Return a handler that answers requests like an engine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            made.gates.append(self.headers["X-Gate"])
            made.answering.wait(30)
            found = made.answers.get(self.path)
            if isinstance(found, list):  # answers in order; the last one repeats
                found = found.pop(0) if len(found) > 1 else found[0]
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            made.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", -1))))
            made.asked.append(self.path)
            made.gates.append(self.headers["X-Gate"])
            found = made.answers[self.path]
            self.wfile.write(found)

        def address_string(self) -> str:
            return "a socket has no address"

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - http.server's own
            """Log nothing."""

    return Handler


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that meets the requirements until a test changes its answers."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    path = tmp_path / "s"
    made = Engine(f"unix://{path}", {"/version": dict(VERSION), "/v1.51/info": dict(INFO)})
    made.answering.set()

    with socketserver.ThreadingUnixStreamServer(str(path), answering(made)) as server, serving(server):
        yield made
        made.answering.set()


@pytest.fixture
def connected(engine: Engine) -> Iterator[DockerEngine]:
    with closing(connect(engine.address, None, {})) as connected:
        yield connected


def refused(address: str) -> EngineError:
    with pytest.raises(EngineError) as caught:
        connect(address, None, {})
    assert caught.value.exit_code == 4
    return caught.value


@pytest.mark.parametrize(
    ("path", "said", "code"),
    [
        ("/version", {"ApiVersion": "1.40"}, "engine-too-old"),
        ("/v1.51/info", {"MemoryLimit": False}, "engine-lacks"),
    ],
)
def test_what_does_not_fit_is_refused(path: str, said: dict[str, Any], code: str, engine: Engine) -> None:
    """An engine that is too old is refused before any further request."""
    engine.answers[path] |= said
    assert refused(engine.address).code == code
    assert engine.asked[-1] == path


@pytest.mark.parametrize("answer", [None, b"<html>", b"[]", b""])
def test_what_is_no_engine_is_not_reached(answer: bytes | None, engine: Engine) -> None:
    """A server that does not answer like an engine is unreachable; the error names the address's source."""
    engine.answers["/version"] = answer
    error = refused(engine.address)
    assert error.code == "engine-unreachable"
    assert "named by --host" in error.context
    assert "Start it" in error.hint


@pytest.mark.parametrize(
    "auths",
    [
        {"registry.test": {"auth": "!"}},
        {"registry.test": {"auth": "bm8tY29sb24="}},
    ],
)
def test_credentials_that_make_no_sense(auths: dict[str, Any], engine: Engine, tmp_path: Path) -> None:
    """Malformed credentials are reported, and no request is sent."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert refused(engine.address).code == "docker-config-invalid"
    assert engine.asked == []


def test_output_that_comes_with_the_head_of_its_response(engine: Engine, connected: DockerEngine) -> None:
    """A quick program's output may arrive together with the response's head."""
    written = frame(b'{"released": ') + frame(b"a word", 2) + frame(b"true}\n")
    runs(engine, written, {"ExitCode": 0})
    said: list[Any] = []
    connected.run_helper("a", ["release"], said.append, 10)
    assert said == [{"released": True}]


def test_a_probe_is_told_what_the_last_one_has_shown(engine: Engine, connected: DockerEngine) -> None:
    """A probe receives the last probe's evidence, so that `fwctl` need not read it again; other verbs do not."""
    answer = b'{"live": {}, "evidence": {"listeners": {"state": "5"}}}\n'
    runs(engine, frame(answer), {"ExitCode": 0})
    for verb in ("probe", "probe", "usage"):
        connected.ask_helper("a", [verb], 10)
    commands = [json.loads(each)["Cmd"][1:] for each in engine.bodies if b"Cmd" in each]
    assert commands == [["probe"], ["probe", 'known={"listeners":{"state":"5"}}'], ["usage"]]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
        b"",
    ],
)
def test_an_answer_that_breaks_off(said: bytes, engine: Engine, connected: DockerEngine) -> None:
    """A truncated answer is an error."""
    engine.answers["/v1.51/containers/a/exec"] = said
    with pytest.raises(EngineError) as caught:
        connected.run_helper("a", ["release"], print, 10)
    assert caught.value.code == "engine-unreachable"


@pytest.mark.parametrize("answer", [b"{}", b'["a"]', b"<html>"])
def test_an_answer_of_another_form(answer: bytes, engine: Engine, connected: DockerEngine) -> None:
    """An answer of another form is an error, never an empty list."""
    engine.answers["/v1.51/containers/json?limit=-1&all=1&size=0&trunc_cmd=0"] = answer
    with pytest.raises(EngineError) as caught:
        connected.listing()
    assert caught.value.code == "engine-unreachable"


def runs(engine: Engine, written: bytes, *inspected: dict[str, Any]) -> None:
    """Let the engine run a program in container `a` with these answers."""
    began = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    engine.answers["/v1.51/containers/a/exec"] = began + b'{"Id": "e1"}'
    engine.answers["/v1.51/exec/e1/start"] = stream + written
    engine.answers["/v1.51/exec/e1/json"] = list(inspected)


NOT_YET = {"ExitCode": None, "Running": True}


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_code_that_comes_late(code: int, engine: Engine, connected: DockerEngine) -> None:
    """An engine may know a program's exit code a moment late, so it is awaited."""
    runs(engine, b"", NOT_YET, NOT_YET, {"ExitCode": code, "Running": False})
    if code == 0:
        connected.run_helper("a", ["release"], print, 10)
        return
    with pytest.raises(EngineError) as caught:
        connected.run_helper("a", ["release"], print, 10)
    assert (caught.value.code, caught.value.context) == ("helper-failed", ("exit code 3",))


def test_no_exit_code_comes(engine: Engine, connected: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an exit code, the error says that the program's success is unknown."""
    monkeypatch.setattr(outputs, "EXIT_SECONDS", 0.1)
    runs(engine, frame(b"words", 2), NOT_YET)
    with pytest.raises(EngineError) as caught:
        connected.run_helper("a", ["release"], print, 10)
    assert caught.value.code == "helper-unfinished"
    assert caught.value.message == "fwctl release in container a has no exit code."
    assert caught.value.context[1] == "words"


def test_a_program_that_can_not_be_started(engine: Engine, connected: DockerEngine) -> None:
    """The error is `NotFoundError` with the engine's message."""
    runs(engine, b"", NOT_YET)
    engine.answers["/v1.51/exec/e1/start"] = (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n"
        b'{"message": "no such exec e1"}'
    )
    with pytest.raises(NotFoundError) as caught:
        connected.run_helper("a", ["release"], print, 10)
    assert "no such exec" in caught.value.context[0]


def test_headers_of_the_cli_s_configuration(engine: Engine, tmp_path: Path) -> None:
    """The CLI's configured headers are sent with every request, even those that bypass the SDK."""
    (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": {"X-Gate": "open"}}))
    runs(engine, b"", {"ExitCode": 0})
    with closing(connect(engine.address, None, {})) as connected:
        connected.run_helper("a", ["release"], print, 10)
    assert set(engine.gates) == {"open"}


def test_an_engine_that_hangs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that the engine does not answer."""
    monkeypatch.setattr(failures, "CALL_SECONDS", 0.5)
    engine.answering.clear()
    error = refused(engine.address)
    assert error.code == "engine-silent"
    assert "waited 0.5 s" in error.context
    assert "restart" in error.hint


def test_a_socket_that_is_not_for_everybody() -> None:
    """The error names the socket's owner, because starting an engine would not help."""
    user = os.geteuid()
    refused("unix:///nowhere")  # imports what an error needs, while everything can be read
    with ExitStack() as afterwards:
        folder = Path(afterwards.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)
        path = folder / "s"
        listening = afterwards.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600 if user == 0 else 0)
        owner = f"{path} belongs to user {path.owner()} and group {path.group()}"
        if user == 0:
            os.seteuid(NOBODY)
            afterwards.callback(os.seteuid, user)
        error = refused(f"unix://{path}")
    assert error.code == "engine-denied"
    assert owner in error.context
    assert "group" in error.hint


@pytest.fixture
def secured(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Variables for an engine with TLS, with certificates checked as by Python 3.13 and later."""
    monkeypatch.setattr("urllib3.util.ssl_.sys", SimpleNamespace(version_info=(3, 13)))
    ours, clients = certify(tmp_path / "certificates")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ours / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(ours / "cert.pem", ours / "key.pem")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), answering(engine)) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with serving(server):
            address = f"tcp://127.0.0.1:{server.server_address[1]}"
            yield {"DOCKER_HOST": address, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(clients)}


def test_certificates_as_docker_s_own_page_makes_them(secured: dict[str, str]) -> None:
    """A CA without a key usage is accepted as by the docker CLI, although Python 3.13 refuses it."""
    with closing(connect(None, None, secured)) as connected:
        assert connected.facts().version == "28.5.2"


def test_certificates_are_read_once(
    secured: dict[str, str], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parallel connections share loaded certificates: loading them again would break other connections."""
    read: list[str] = []

    def noted(name: str) -> Callable[..., None]:
        before = getattr(ssl.SSLContext, name)

        def note(*given: Any, **named: Any) -> None:  # noqa: ANN401 - whatever is given to the library
            read.append(name)
            before(*given, **named)

        return note

    names = ("load_cert_chain", "load_default_certs", "load_verify_locations")
    for name in names:
        monkeypatch.setattr(ssl.SSLContext, name, noted(name))
    engine.answering.clear()
    with closing(transport.open_client(locate(None, None, secured), "1.51", 60)) as client:
        waiting = [in_background(client.version, api_version=False) for _ in range(8)]
        until(lambda: len(engine.asked) == len(waiting))
        engine.answering.set()
        assert [each.result(30) for each in waiting] == [VERSION] * 8
    assert sorted(read) == ["load_cert_chain", "load_verify_locations"]


_NETWORK = {"Id": "n1", "Name": "other", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10.0.0.0/33"}]}}
_OURS = {"Labels": dict(labels.ownership_labels("clawker"))}
_LIST = "/containers/json?limit=-1&all=1&size=0&trunc_cmd=0"
UNKNOWN_FORMS: dict[str, tuple[str, object, Callable[[DockerEngine], object]]] = {
    "network other": ("/networks?filters=%7B%7D", [{**_NETWORK, **_OURS}], DockerEngine.networks),
    "a network": ("/networks?filters=%7B%7D", [{"Name": "other"}], DockerEngine.networks),
    "container c1": (_LIST, [{"Id": "c1"}], DockerEngine.listing),
    "container /web": ("/containers/c1/json", {"Id": "c1", "Name": "/web"}, lambda engine: engine.container("c1")),
    "image i1": ("/images/i1/json", {}, lambda engine: engine.image("i1")),
    "its volumes": ("/volumes", {"Volumes": [{}]}, DockerEngine.volumes),
    "its time": ("/info", {}, DockerEngine.clock),
}


@pytest.mark.parametrize("what", UNKNOWN_FORMS)
def test_an_answer_in_an_unknown_form_is_an_error_of_the_engine(
    engine: Engine, connected: DockerEngine, what: str
) -> None:
    """An unknown form is an engine error that names the object; it once ended a watcher as unusable settings."""
    path, answer, ask = UNKNOWN_FORMS[what]
    engine.answers[f"/v1.51{path}"] = [answer]
    with pytest.raises(EngineError) as caught:
        ask(connected)
    assert (caught.value.code, caught.value.exit_code) == ("engine-unreadable", 4)
    assert what in caught.value.message


def test_a_foreign_network_that_can_not_be_read_is_left_out(engine: Engine, connected: DockerEngine) -> None:
    """An unreadable foreign network has no subnets, and the reason becomes a warning."""
    networks = [_NETWORK, {**_NETWORK, "Id": "n2", "Name": "good", "IPAM": None}]
    engine.answers["/v1.51/networks?filters=%7B%7D"] = [networks]
    bad, good = connected.networks()
    assert (bad.name, bad.subnets, good.name, good.unreadable) == ("other", (), "good", "")
    assert "10.0.0.0/33" in bad.unreadable


def test_errors_of_our_own_files_do_not_blame_the_engine(
    connected: DockerEngine, secured: dict[str, str], tmp_path: Path
) -> None:
    """A vanished program of ours or a damaged TLS file is not blamed on the engine."""
    program = tmp_path / "program"
    program.write_bytes(b"x")
    image = BuiltImage("a", "1", "amd64", (Entry("program", program),))
    image.archive_size  # noqa: B018 - which reads it
    program.unlink()
    with pytest.raises(SettingsError, match="installation"):
        connected.load_image(image.archive(), 1, lambda _: None)
    (Path(secured["DOCKER_CERT_PATH"]) / "key.pem").write_bytes(b"x")
    with pytest.raises(EngineError) as caught:
        connect(None, None, secured)
    assert caught.value.code == "docker-tls-unusable"


def test_an_error_names_the_container_and_says_what_to_try(engine: Engine, connected: DockerEngine) -> None:
    """Errors show the container's name or a short id, in our text and in the engine's."""
    identity = "ab" * 32
    row = {"Id": identity, "Names": ["/clawker-envoy-next"], "ImageID": "i", "State": "created"}
    engine.answers[f"/v1.51{_LIST}"] = [[row]]
    connected.listing()
    body = json.dumps({"message": f"no {identity}"}).encode()
    for each in (identity, unlisted := "cd" * 32):
        head = f"HTTP/1.1 500 x\r\nContent-Length: {len(body)}\r\n\r\n"
        engine.answers[f"/v1.51/containers/{each}/start"] = head.encode() + body
    with pytest.raises(EngineError) as caught:
        connected.start(identity)
    assert caught.value.message == "The engine could not start container clawker-envoy-next."
    assert (caught.value.context, caught.value.hint != "") == (("no abababababab",), True)
    with pytest.raises(EngineError, match="start container cdcdcdcdcdcd\\."):
        connected.start(unlisted)
