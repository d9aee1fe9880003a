"""Printed commands name the current stack, and the program understands them."""

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

import clawker_fw
from clawker_fw.cli import usage
from clawker_fw.cli.main import app
from clawker_fw.report import commands
from tests.cli.conftest import Command

_PROGRAM: TyperGroup = typer.main.get_group(app)
_INCOMPLETE = {"MissingParameter", "BadOptionUsage"}
"""Errors of a command that a sentence only names, such as `rules remove`."""


def _sentences() -> Iterator[str]:
    """All texts in the sources, with a word in place of each value."""
    for path in sorted(Path(clawker_fw.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "status" for part in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _in_order(words: list[str]) -> list[str]:
    line = usage.read(_PROGRAM, words)
    return [*line.options, *line.rest]


def _parse(line: str) -> Any:  # noqa: ANN401 - typer has its own types
    """Parse a printed command like a shell and the program, without running it; return the outermost context."""
    words = list(takewhile(lambda word: word not in {"|", ">", "&&"}, shlex.split(line)))[1:]
    command: Any = _PROGRAM
    outermost: Any = _PROGRAM.make_context("clawker-fw", _in_order(words))
    context = outermost
    try:
        while isinstance(command, TyperGroup):
            rest = [*context._protected_args, *context.args]  # noqa: SLF001 - as in typer's own `invoke`
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
    except typer.Exit:  # a group without a command prints its help
        pass
    except typer.TyperException as error:
        if type(error).__name__ not in _INCOMPLETE:
            raise
    return outermost


def test_every_command_in_a_sentence_names_the_stack() -> None:
    """The options come exactly once, and the program knows the command and its options."""
    commands.use({"--config": "/a b.yaml", "--project": "demo"})
    texts = [commands.named(commands.named(sentence)) for sentence in _sentences()]
    commands.use({})
    assert set(commands.NAMES) == set(_PROGRAM.commands)
    lines = {line for text in texts for line in re.findall(r"`(clawker-fw [a-z-][^`]*)`", text)}
    lines -= {"clawker-fw --show-completion"}  # the same for all stacks
    assert len(lines) > 30
    for line in lines:
        context = _parse(line)
        assert (line.count("--config"), line.count("--project")) == (1, 1), line
        assert (context.params["config"], context.params["project"]) == (Path("/a b.yaml"), "demo")


@pytest.mark.parametrize("line", ["run --dry-run", "drift", "status", "doctor", "explain b.test", "denials"])
def test_every_answer_names_the_stack(line: str, command: Command, settings_file: Path) -> None:
    """All commands in an answer have the options, in text and JSON, before and after the first run."""
    options = ("--config", str(settings_file), "--project", "demo")
    bare = re.compile(rf"(?:[`(\"]|^ *)clawker-fw (?:{'|'.join(commands.NAMES)})\b", re.MULTILINE)
    for before in ("config", "run"):
        command(*options, before)
        for format_ in ("text", "json"):
            outcome = command(*options, *shlex.split(line), CLAWKER_FW_FORMAT=format_)
            assert not bare.search(outcome.out + outcome.err), outcome


def test_options_of_the_program_after_the_command() -> None:
    """They mean the same, except for a container's arguments and the command's own options."""
    for line, same in {
        "drift --project x --json": "--project x drift --format=json",
        "rules deny --config=a --debug -- -a.com --host": "--config=a --debug rules deny -- -a.com --host",
        "service --project x --heal all": "--project x service --heal all",
        "--host h agent --project x flags": "--host h --project x agent flags",
        "agent run --project x IMAGE --debug": "agent run --project x IMAGE --debug",
        "fleet status --context a --project": "--project",
    }.items():
        assert _in_order(line.split()) == same.split()


def test_a_variable_overrides_the_project_of_the_file(command: Command, settings_file: Path) -> None:
    """Every command warns, and `down` removes only a stack named by an option."""
    settings_file.write_text(f"project: demo\n{settings_file.read_text()}")
    warned = command("run", CLAWKER_FW_PROJECT="other").err
    assert "for project demo, but CLAWKER_FW_PROJECT overrides it with other." in warned
    refused = command("down", CLAWKER_FW_PROJECT="other")
    assert (refused.code, refused.err.count("error[project-unclear]")) == (6, 1)
    assert command("down", "--project", "other", CLAWKER_FW_PROJECT="x").code == 0
    assert command("down").err.count("overrides") == 0


@pytest.mark.parametrize("text", ["0d", "367d", "2999-01-01", "yesterday", "1x", "-1d", ""])
@pytest.mark.parametrize("line", ["denials", "rules unused"])
def test_times_that_are_no_past(line: str, text: str, command: Command) -> None:
    """Both commands read `--since` alike."""
    assert command(*line.split(), "--since", text).code == 2
