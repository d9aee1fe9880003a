"""Traffic through inspected TLS: streams, uploads, gRPC and large contents."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import program
from devkit.inspecting import PORT, Inspecting, certificate
from devkit.peers import peer_program
from devkit.programs import OWN_LOOPBACK, machine
from devkit.starting import wait_for
from devkit.waiting import until
from devkit.world import Program

NAME = "a.test"
LARGE = 1 << 27
VERSIONS = ("--http1.1", "--http2")


class Agent:
    """curl, through Envoy."""

    def __init__(self, proxy: Inspecting, own: Path, folder: Path) -> None:
        self.port, self.folder = proxy.ports[PORT], folder
        self.options = ["--silent", "--cacert", str(own), "--resolve", f"{NAME}:{self.port}:127.0.0.1"]

    def command(self, target: str, *options: object) -> list[str]:
        return ["curl", *self.options, *map(str, options), f"https://{NAME}:{self.port}{target}"]

    def curl(self, target: str, *options: object) -> bytes:
        """Make a request, and return the answer's content."""
        return subprocess.run(self.command(target, *options), check=True, capture_output=True, timeout=120).stdout


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[tuple[Inspecting, Path]]:
    """The proxy with a rule for all paths, and its certificate's file. The host behind it speaks HTTP/2."""
    folder = tmp_path_factory.mktemp("passing")
    own, log = certificate(folder / "own", NAME), folder / "host"
    with ExitStack() as stack:
        with log.open("wb") as output:
            words = ("--address", OWN_LOOPBACK, "--https", f"{PORT}", "--name", NAME)
            host = subprocess.Popen([peer_program(machine()), "origin", *words], stdout=output)
        stack.callback(host.wait)
        stack.callback(host.terminate)
        said = Program(log)
        wait_for(host, lambda: bool(said.said()), log)
        (folder / "trusted").write_text(said.said()[0]["certificate"])
        names = stack.enter_context(NameServer([NAME], OWN_LOOPBACK))
        (folder / "envoy").mkdir()
        started = stack.enter_context(
            Inspecting(folder / "envoy", program(release), names.port, own, folder / "trusted")
        )
        started.apply({"dst": NAME, "port": PORT, "inspect": True})
        yield started, own[0]


@pytest.fixture
def agent(proxy: tuple[Inspecting, Path], tmp_path: Path) -> Agent:
    found = Agent(*proxy, tmp_path)
    until(lambda: not subprocess.run(found.command("/"), capture_output=True, check=False).returncode)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_either_version_of_http_reaches_the_host(agent: Agent, version: str) -> None:
    """Envoy speaks HTTP/2 with a host that does, whatever the agent speaks."""
    spoken = agent.curl("/x", version, "--output", agent.folder / "x", "--write-out", "%{http_version}")
    assert spoken == version.removeprefix("--http").encode()
    assert json.loads((agent.folder / "x").read_bytes())["proto"] == "HTTP/2.0"


@pytest.mark.parametrize("version", VERSIONS)
def test_events_arrive_one_by_one(agent: Agent, version: str) -> None:
    """Server-sent events arrive one by one, not all at the end."""
    with subprocess.Popen(
        agent.command("/events?count=5", version, "--no-buffer"), stdout=subprocess.PIPE
    ) as curl:
        assert curl.stdout
        running = [(line, curl.poll()) for line in curl.stdout if line.startswith(b"data:")]
    assert [line for line, _ in running] == [b"data: %d\n" % number for number in range(5)]
    assert [ended for _, ended in running[:-1]] == [None] * 4


def test_a_call_has_its_trailers(agent: Agent) -> None:
    """A stream of gRPC ends with its status, which is a trailer (gRPC over HTTP/2)."""
    sent, heads = agent.folder / "sent", agent.folder / "heads"
    sent.write_bytes(bytes(range(256)) * 40_000)
    got = agent.curl(
        "/echo", "--http2", "--data-binary", f"@{sent}", "--header", "TE: trailers", "--dump-header", heads
    )
    assert got == sent.read_bytes()
    first, *_, last = [line for line in heads.read_text().splitlines() if line]
    assert (first.strip(), last.strip()) == ("HTTP/2 200", "grpc-status: 0")


def test_an_upload_in_chunks(agent: Agent) -> None:
    """An upload may have an unknown length, and a client may ask first (`Expect: 100-continue`)."""
    sent = agent.folder / "sent"
    sent.write_bytes(b"0123456789abcdef" * 500_000)
    chunked = ("--http1.1", "--header", "Transfer-Encoding: chunked", "--header", "Expect: 100-continue")
    assert agent.curl("/echo", *chunked, "--upload-file", sent, "--request", "POST") == sent.read_bytes()


def test_a_large_content_passes(agent: Agent) -> None:
    """128 MiB, more than any buffer, arrive unchanged."""
    sizes = ("--output", "/dev/null", "--write-out", "%{size_download}")
    assert agent.curl(f"/bytes?size={LARGE}", "--http2", *sizes) == f"{LARGE}".encode()
