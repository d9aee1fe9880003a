"""The command line with an in-memory engine."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from clawker_fw.agents import names as agents
from clawker_fw.cli import session
from clawker_fw.cli.main import app
from clawker_fw.report.documents import schemas
from devkit.memory.engine import MemoryEngine

SETTINGS = "rules:\n  - dst: a.test\n  - dst: h.test\n    proto: http\n"


@dataclass(frozen=True)
class Outcome:
    """The result of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The JSON output, parsed."""
        return json.loads(self.out)

    def valid(self, schema: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON output after checking it against a command's schema: its name, or how it begins."""
        _validator(re.sub(r"(?<=[a-z])-(?=[a-z])", " ", schema)).validate(self.json)
        return self.json


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    """Return what validates by a schema, which has to be one itself."""
    document = schemas.schema(next(command for command in schemas.ANSWERS if command.startswith(name)))
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


Command = Callable[..., Outcome]


@pytest.fixture
def memory() -> MemoryEngine:
    """An empty engine."""
    return MemoryEngine()


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
    monkeypatch.setattr(agents, "remembered_at", lambda: tmp_path / "agents.json")
    clock = count()  # several threads may ask at once
    timeless = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(clock) / 100)
    for module in ("apply", "observe", "lock"):
        monkeypatch.setattr(f"clawker_fw.reconcile.{module}.time", timeless)

    def run(*arguments: str, stdin: str = "", **environment: str) -> Outcome:
        result = CliRunner().invoke(
            app,
            arguments,
            input=stdin,
            env={
                "COLUMNS": "140",
                "XDG_STATE_HOME": state,
                "DOCKER_CONFIG": str(tmp_path / "docker"),
                **environment,
            },
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run
