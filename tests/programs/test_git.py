"""Real git through the real Envoy, without credentials: allowed operations, and messages for refused ones."""

import os
import secrets
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clawker_fw.settings.secrets.sources import GIT_USER
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.inspecting import PORT, Handler, Host, Injecting, Reached, certificate
from devkit.programs import OWN_LOOPBACK
from devkit.stacks import rule_set
from devkit.waiting import until

NAME = "git.test"
RULE = {"dst": NAME, "port": PORT, "git": {"o/read": "read", "o/write": "write"}, "inject": "github"}
TOKEN = f"hidden-{secrets.token_hex(8)}"
CREDENTIAL = f"Basic {b64encode(f'{GIT_USER}:{TOKEN}'.encode()).decode()}"


_ENVIRONMENT = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
_END = b"\r\n\r\n"


class _Handler(Handler):
    """Passes requests with the credential to git's own server (git-http-backend(1)), and refuses others."""

    root: Path
    credential: str

    def answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        self.reached.append(Reached(self.command, self.path, headers))
        if headers.get("authorization") != self.credential:
            self.send_response(401)
            self.send_header("www-authenticate", 'Basic realm="git"')
            self._end(b"")
            return
        path, _, query = self.path.partition("?")
        answered = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env={
                **_ENVIRONMENT,
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "HOME": str(self.root),
                "REMOTE_USER": "agent",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": headers.get("content-type", ""),
                "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
                "GIT_PROTOCOL": headers.get("git-protocol", ""),
            },
        ).stdout
        head, _, content = answered.partition(_END)
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self._end(content)

    def _body(self, headers: dict[str, str]) -> bytes:
        """Read the content, which git sends in chunks if it is long (RFC 9112, section 7.1)."""
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _end(self, content: bytes) -> None:
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class GitHost(Host):
    """The code host. Repositories are below a folder, as `o/r.git`."""

    def __init__(self, folder: Path, credential: str, *names: str) -> None:
        """Listen, and require `credential` as the value of the header `Authorization`."""
        self.root = folder / "repositories"
        self.handler = type("Handler", (_Handler,), {"root": self.root, "credential": credential})
        super().__init__(folder / "tls", *names)

    def repository(self, name: str) -> Path:
        """Create a repository that accepts pushes, with one commit on `main`."""
        bare, work = self.root / f"{name}.git", self.root.parent / "work" / name
        for command in (
            ("init", "--quiet", "--bare", "--initial-branch", "main", bare),
            ("-C", bare, "config", "http.receivepack", "true"),
            ("init", "--quiet", "--initial-branch", "main", work),
            ("-C", work, *_AUTHOR, "commit", "--quiet", "--allow-empty", "--message", "first"),
            ("-C", work, "push", "--quiet", bare, "main"),
        ):
            subprocess.run(["git", *command], check=True, capture_output=True)
        return bare


_AUTHOR = ("-c", "user.name=agent", "-c", "user.email=agent@example.com")


@dataclass
class Agent:
    """An agent with git that trusts Envoy's certificate. A prompt for a password leaves a mark."""

    folder: Path
    proxy: Injecting
    own: Path

    def __post_init__(self) -> None:
        """Write the program that git would use to ask for a password."""
        self.asked = self.folder / "asked"
        self.ask = self.folder / "ask"
        self.ask.write_text(f"#!/bin/sh\ntouch {self.asked}\n")
        self.ask.chmod(0o755)
        self.port = self.proxy.ports[PORT]

    def git(self, *arguments: object, fails: bool | None = False) -> str:
        """Run git, and return its output. `fails` is whether it has to fail; None if it may."""
        settings = {
            "http.sslCAInfo": self.own,
            "http.curloptResolve": f"{NAME}:{self.port}:127.0.0.1",
            "user.name": "agent",
            "user.email": "agent@example.com",
            "protocol.version": "2",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        done = subprocess.run(
            ["git", *options, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={
                **_ENVIRONMENT,
                "HOME": str(self.folder),
                "GIT_ASKPASS": str(self.ask),
                "GIT_TERMINAL_PROMPT": "0",
                "LC_ALL": "C",
            },
        )
        assert fails in {None, bool(done.returncode)}, done.stdout + done.stderr
        assert not self.asked.exists()
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def url(self, name: str) -> str:
        return f"https://{NAME}:{self.port}/{name}"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHost]:
    with GitHost(tmp_path_factory.mktemp("host"), CREDENTIAL, NAME) as started:
        for name in ("o/read", "o/write", "o/other"):
            started.repository(name)
        yield started


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release, host: GitHost) -> Iterator[Injecting]:
    """The proxy, for all tests of this module."""
    folder = tmp_path_factory.mktemp("injecting")
    own = certificate(folder / "own", NAME)
    rules = rule_set(RULE)[1]
    with (
        NameServer([NAME], OWN_LOOPBACK) as names,
        Injecting(folder, release, names.port, own, host.certificate, first=rules) as started,
    ):
        until(started.serves)
        yield started


@pytest.fixture
def agent(tmp_path: Path, proxy: Injecting, host: GitHost) -> Agent:
    proxy.give({"github#basic": CREDENTIAL})
    found = Agent(tmp_path, proxy, proxy.folder / "own" / "cert.pem")
    until(lambda: "main" in found.git("ls-remote", found.url("o/read"), fails=None))
    host.reached.clear()
    return found


def test_what_may_be_fetched_may_not_be_pushed(agent: Agent, host: GitHost) -> None:
    """Git prints the reason at the first request, and nothing of a push reaches the host."""
    work = agent.folder / "work"
    for url in (agent.url("o/read"), f"{agent.url('o/read')}.git"):
        agent.git("clone", url, work)
        agent.git("-C", work, "fetch")
        agent.git("-C", work, "commit", "--allow-empty", "--message", "mine")
        host.reached.clear()
        said = agent.git("-C", work, "push", "origin", "main", fails=True)
        assert "remote: clawker-fw: o/read may be fetched, not pushed to" in said
        assert host.reached == []
        subprocess.run(["rm", "-r", work], check=True)
    for version in ("0", "1"):
        agent.git("-c", f"protocol.version={version}", "clone", agent.url("o/read"), agent.folder / version)


def test_what_may_be_written(agent: Agent, host: GitHost) -> None:
    """Small and large pushes, tags, deletions and force; shallow and partial clones."""
    work = agent.folder / "work"
    agent.git("clone", agent.url("o/write"), work)
    for size in (10, 3_000_000):
        (work / "content").write_bytes(os.urandom(size))
        agent.git("-C", work, "add", "content")
        agent.git("-C", work, "commit", "--message", f"{size}")
        agent.git("-C", work, "push", "origin", "main")
    agent.git("-C", work, "tag", "v1")
    agent.git("-C", work, "push", "origin", "v1", "main:topic")
    agent.git("-C", work, "push", "origin", "--delete", "topic")
    agent.git("-C", work, "commit", "--amend", "--message", "again")
    agent.git("-C", work, "push", "--force", "origin", "main")
    agent.git("clone", "--depth", "1", agent.url("o/write"), agent.folder / "shallow")
    agent.git("clone", "--filter", "blob:none", agent.url("o/write"), agent.folder / "partial")
    assert "v1" in agent.git("ls-remote", agent.url("o/write"))
    assert {each.headers["authorization"] for each in host.reached} == {CREDENTIAL}
    assert any(each.headers.get("transfer-encoding") == "chunked" for each in host.reached)


def test_what_the_agent_brings_is_replaced(agent: Agent, host: GitHost) -> None:
    """The agent's own password in a URL, or its own header, is replaced."""
    url = agent.url("o/read").replace("https://", "https://somebody:password@")
    assert "main" in agent.git("ls-remote", url)
    assert "main" in agent.git(
        "-c", "http.extraHeader=Authorization: Bearer mine", "ls-remote", agent.url("o/read")
    )
    assert {each.headers["authorization"] for each in host.reached} == {CREDENTIAL}


def test_other_repositories_are_refused(agent: Agent, host: GitHost) -> None:
    """The agent gets the refusal, and nothing reaches the host."""
    said = agent.git("clone", agent.url("o/other"), agent.folder / "other", fails=True)
    assert "403" in said
    assert host.reached == []


def test_a_secret_that_is_wrong_or_missing_is_told(agent: Agent) -> None:
    """Git prints the reason, and asks for no password."""
    agent.proxy.give({"github#basic": "Basic d3Jvbmc="})
    listing = ("ls-remote", agent.url("o/read"))
    wrong = "remote: clawker-fw: the host does not accept the secret github"
    until(lambda: wrong in agent.git(*listing, fails=None))
    assert wrong in agent.git(*listing, fails=True)
    agent.proxy.give({})
    until(lambda: "the secret for it is not there" in agent.git(*listing, fails=True))
