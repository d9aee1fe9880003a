"""The command line with an in-memory engine."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from typer import testing
from typer.main import get_command
from typer.testing import CliRunner

from clawker_fw.agents import names as agents
from clawker_fw.cli import session
from clawker_fw.cli.main import app
from clawker_fw.errors import EngineError
from clawker_fw.report.documents import schemas
from clawker_fw.watch import record as watching
from clawker_fw.watch import trusted_settings
from clawker_fw.watch.decision import Decision
from devkit import stacks
from devkit.memory.container import MemoryContainer
from devkit.memory.engine import MemoryEngine

SETTINGS = "rules:\n  - dst: a.test\n  - dst: h.test\n    proto: http\n"


@dataclass(frozen=True)
class Outcome:
    """The result of one command."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """The text of both streams, with whitespace joined."""
        return " ".join(f"{self.out}{self.err}".split())

    @property
    def failure(self) -> tuple[int, list[str]]:
        """The exit code, and the codes of the errors in the text."""
        return self.code, re.findall(r"^error\[([^]]+)", self.err, re.MULTILINE)

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)

    @property
    def answer(self) -> Any:  # noqa: ANN401 - JSON
        """The JSON output, checked against the command's schema."""
        words = f" {' '.join(self.arguments)} "
        return self.valid(max((each for each in schemas.ANSWERS if f" {each} " in words), key=len))

    @property
    def findings(self) -> list[Any]:
        """All findings in the answer of `drift`."""
        return [each for sibling in self.valid("drift")["siblings"] for each in sibling["findings"]]

    def records(self, event: str = "") -> list[Any]:
        """Return the records on standard error, or those of one event."""
        found = [json.loads(line) for line in self.err.splitlines() if line.startswith('{"time"')]
        return [each for each in found if event in {"", each["event"]}]

    def valid(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON output after checking it against a command's schema."""
        _validator(name).validate(self.json)
        return self.json


_built = cache(get_command)
"""Builds the tree of commands once, instead of for every command."""


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    """Return the validator of a schema, which must be valid itself."""
    document = schemas.schema(name)
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


class Command:
    """Runs command lines of the program with an environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Outcome:
        result = CliRunner().invoke(app, arguments, input=stdin, env={**self._environment, **environment})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(arguments, result.exit_code, result.stdout, result.stderr)

    def json(self, *arguments: str, code: object = None, **environment: str) -> Any:  # noqa: ANN401 - JSON
        """Run a command, check its exit code, and return its JSON answer, checked against its schema.

        The exit code is not typed `int`, so that mypy accepts variables as a dictionary.
        """
        outcome = self(*arguments, "--format", "json", **environment)
        assert code in {None, outcome.code}, outcome.err
        return outcome.answer


def join(memory: MemoryEngine, name: str, **shape: Any) -> MemoryContainer:  # noqa: ANN401 - fields of a shape
    """Start an agent as documented, except for these fields."""
    bare = stacks.bare_container(name, stacks.blueprint(memory.facts(), "a.test"), "clawker-net")
    confined = {"dns": ("10.213.1.53",), "capabilities_dropped": ("NET_RAW",), **shape}
    memory.start(memory.create_container(replace(bare, shape=replace(bare.shape, **confined))))
    return memory.inside(name)


def record(**fields: Any) -> str:  # noqa: ANN401 - JSON
    """Return a record of a refusal, with the fields common to all."""
    whole = {"time": "x", "source": "10.213.0.1:1", "protocol": "tls", "port": 443, **fields}
    return json.dumps(whole, separators=(",", ":"))


@pytest.fixture
def memory() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which no command reaches the engine."""

    def refuse(_: object) -> MemoryEngine:
        raise EngineError("engine-unreachable", "There is no engine.", context=["No such file", "named by X"])

    return lambda: monkeypatch.setattr(session, "connect_engine", refuse)


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "clawker-fw.yaml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def command(memory: MemoryEngine, settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in the folder of the settings file, without waits for real programs."""
    state = str(settings_file.parent / "state")
    monkeypatch.setattr(session, "connect_engine", lambda _: memory)
    monkeypatch.setattr(testing, "_get_command", _built)
    monkeypatch.setattr(agents, "remembered_at", lambda: tmp_path / "agents.json")
    clock = count()  # several threads may read it at once
    timeless = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(clock) / 20)
    for module in ("apply", "observe", "lock"):
        monkeypatch.setattr(f"clawker_fw.reconcile.{module}.time", timeless)

    variables = {"COLUMNS": "140", "XDG_STATE_HOME": state, "DOCKER_CONFIG": str(tmp_path / "docker")}
    return Command(variables)


DOCKER = f"""#!{sys.executable}
import json, os, pathlib, signal, sys
arguments = sys.argv[1:]
verb = next(each for each in arguments if each in ("create", "start", "rm", "kill"))
stopping = os.environ.get("STOPPED_BY") if verb == "create" else None
if stopping:  # as it ends
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    os.kill(os.getppid(), getattr(signal, stopping))
typed = sys.stdin.read() if verb == "start" else ""
with pathlib.Path(sys.argv[0]).with_name("calls").open("a") as calls:
    print(json.dumps(arguments), file=calls)
if verb == "create":
    code = int(os.environ.get("CREATES_WITH", "0"))
    print(os.environ["AGENT_ID"] if code == 0 else "", end="")
    sys.exit(code)
if verb == "start":
    print(typed, end="")
    sys.exit(int(os.environ.get("STARTS_WITH", "42")))
"""
"""A docker CLI that records its arguments, and tells which container the engine has."""


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    return folder


def calls(folder: Path) -> list[list[str]]:
    """Return the arguments of each call of docker."""
    file = folder / "calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


DecisionsOf = Callable[[int], list[Decision]]


@pytest.fixture
def steady_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have watchers accept settings files at once, although tests have just written them."""
    monkeypatch.setattr(trusted_settings, "STEADY_SECONDS", 0.0)


@pytest.fixture
def decisions_of(monkeypatch: pytest.MonkeyPatch) -> DecisionsOf:
    """Return a function that stops the next watcher by SIGTERM after some decisions, and returns them."""
    write = watching.write

    def stop_after(number: int) -> list[Decision]:
        decisions: list[Decision] = []

        def stopping(decision: Decision) -> None:
            write(decision)
            if len(decisions) < number:  # it ends soon after the signal
                decisions.append(decision)
                if len(decisions) == number:
                    os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(watching, "write", stopping)
        return decisions

    return stop_after
