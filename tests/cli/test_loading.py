"""Only the command that a line names is imported and built. Whatever the line is, the answer is the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from clawker_fw.cli import commands
from clawker_fw.cli.app import COMPLETE_VARIABLE, app
from clawker_fw.cli.commands import MODULES

ALL = set(MODULES)


def named(*line: str) -> set[str]:
    """Return the commands of the program for a line."""
    program = commands.program(line)
    group = typer.main.get_command(program)
    assert isinstance(group, TyperGroup)
    return set(group.commands)


@pytest.mark.parametrize("command", MODULES)
def test_a_command_is_built_alone(command: str) -> None:
    """Each command is in the module that is imported for it."""
    assert named(command, "--format", "json") == {command}
    assert named("--debug", "--project", "run", "--host=status", command) == {command}


@pytest.mark.parametrize(
    "line",
    [(), ("--help",), ("-h",), ("nope",), ("--nope", "drift"), ("--project",), ("--", "drift"), ("--version",)],
)
def test_other_lines_get_all_of_them(line: tuple[str, ...]) -> None:
    """What names no command, or may be wrong, is answered with all commands at hand."""
    assert named(*line) == ALL


def test_a_shell_completes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of a shell that completes is not on the command line."""
    monkeypatch.setenv(COMPLETE_VARIABLE, "complete_bash")
    assert named("drift") == ALL


def test_every_command_is_known() -> None:
    """No module has a command that the table does not have."""
    commands.program()
    found = [each.name or each.callback.__name__ for each in app.registered_commands if each.callback]
    groups = [str(each.typer_instance.info.name) for each in app.registered_groups if each.typer_instance]
    assert sorted([*found, *groups]) == sorted(MODULES)


def test_others_are_not_imported() -> None:
    """A process that runs one command does not import the modules of others."""
    script = (
        "import sys; from clawker_fw.cli import program; program(['drift']); "
        "print([each for each in sys.modules if each.startswith('clawker_fw.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "clawker_fw.cli.stack" in done.stdout
    assert "clawker_fw.cli.rules" not in done.stdout


_UNTIL_THE_ENGINE_IS_ASKED = """
import json, os, sys
from clawker_fw import background
from clawker_fw.cli import program

def ask(*_, **__):
    print(json.dumps(sorted({each.partition(".")[0] for each in sys.modules})), flush=True)
    os._exit(0)

background.in_background = ask
program(sys.argv[1:])()
"""

SLOW = {"cryptography", "docker", "jinja2", "pydantic", "pydantic_core", "requests", "rich", "yaml"}
"""What only settings, certificates, changes, new files or long answers need."""


@pytest.mark.parametrize(
    "line",
    [
        ("drift",),
        ("drift", "--format", "json", "--agents", "ignore", "--diff"),
        ("run",),
        ("run", "--format", "json", "--drain-timeout", "1s", "--lock-wait", "5s"),
        ("reload",),
        ("status",),
    ],
)
def test_the_engine_is_asked_first(line: tuple[str, ...], tmp_path: Path) -> None:
    """Before the engine is asked, nothing slow is imported that could be imported while it answers."""
    settings = tmp_path / "clawker-fw.yaml"
    settings.write_text("rules: []\n")
    options = ["--config", str(settings), "--project", "one", "--host", "unix:///nowhere", "--log-format", "json"]
    command = [sys.executable, "-c", _UNTIL_THE_ENGINE_IS_ASKED, *options, *line]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout))
    assert "http" in imported
    assert imported.isdisjoint(SLOW)
