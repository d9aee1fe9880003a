"""What a shell completes, asked for as a shell asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clawker_fw.agents.names import AgentNames, Attached
from clawker_fw.engine.locate import DEFAULT_ADDRESS
from devkit.stacks import CHECKOUT
from tests.cli.conftest import Command, Outcome
from tests.unit.test_locate import write_context


def ask(command: Command, line: str, **variables: str) -> Outcome:
    """Ask for the candidates at the end of a command line, as bash does."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return command(_CLAWKER_FW_COMPLETE="complete_bash", **words, **variables)


def candidates(command: Command, line: str, **variables: str) -> list[str]:
    """Return the candidates at the end of a command line. Nothing else is written."""
    found = ask(command, f"clawker-fw {line}", **variables)
    assert (found.code, found.err) == (0, "")
    return found.out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("denials --reason no-", ["no-rule", "no-websocket", "no-server-name", "no-address", "no-secret"]),
        ("rules remove ", [".sub.test", "a.test"]),
        ("rules allow a", ["a.test"]),
        ("rules deny b.test a", ["a.test"]),
        ("explain ", ["a.test"]),
        ("--config other.yaml rules remove ", ["other.test"]),
        ("--config missing.yaml rules remove ", []),
        ("--config broken.yaml rules remove ", []),
    ],
)
def test_siblings_reasons_and_rules(line: str, expected: list[str], command: Command, settings_file: Path) -> None:
    """They are those that the program knows and those of the chosen settings; unreadable settings have none."""
    settings_file.write_text("rules:\n  - dst: a.test\n  - dst: a.test\n    proto: http\n  - dst: .sub.test\n")
    (settings_file.parent / "other.yaml").write_text("rules:\n  - dst: other.test\n")
    (settings_file.parent / "broken.yaml").write_text("rules: [")
    assert candidates(command, line) == expected


def test_contexts_of_docker(command: Command, tmp_path: Path) -> None:
    """They are those of the docker CLI's configuration, and the one that needs no file."""
    folder = tmp_path / "contexts-of-docker"
    assert candidates(command, "--context ", DOCKER_CONFIG=str(folder)) == ["default"]
    for name in ("far", "near"):
        write_context(folder, name, {})
    assert candidates(command, "--context ", DOCKER_CONFIG=str(folder)) == ["default", "far", "near"]
    assert candidates(command, "--context f", DOCKER_CONFIG=str(folder)) == ["far"]
    (folder / "contexts" / "meta" / "x").mkdir()
    (folder / "contexts" / "meta" / "x" / "meta.json").write_text("{")
    assert candidates(command, "--context ", DOCKER_CONFIG=str(folder)) == []


def test_agents(command: Command) -> None:
    """They are those that are remembered of the chosen stack."""
    AgentNames(DEFAULT_ADDRESS, "clawker").look({"10.213.0.9": Attached("gone", 0.0)}, 1.0)
    AgentNames(DEFAULT_ADDRESS, "other").look({"10.213.0.9": Attached("elsewhere", 0.0)}, 1.0)
    assert candidates(command, "denials --agent ") == ["gone"]
    assert candidates(command, "denials --agent b") == []
    assert candidates(command, "--project other denials --agent ") == ["elsewhere"]


def test_nothing_is_said_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """Without an engine, without settings and with a broken configuration, a process says nothing and succeeds."""
    (tmp_path / "config.json").write_text("{")
    for line in ("denials --agent ", "rules remove ", "--context ", "--host tcp://127.0.0.1:1 denials --agent "):
        whole = f"clawker-fw {line}"
        done = subprocess.run(
            [sys.executable, "-m", "clawker_fw"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(CHECKOUT),
                "HOME": str(tmp_path),
                "XDG_CONFIG_HOME": str(tmp_path),
                "DOCKER_CONFIG": str(tmp_path),
                "CLAWKER_FW_LOG_FORMAT": "json",
                "_CLAWKER_FW_COMPLETE": "complete_bash",
                "COMP_WORDS": whole,
                "COMP_CWORD": str(whole.count(" ")),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        expected = "default" if line == "--context " else ""
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, expected, ""), line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell(shell: str, command: Command) -> None:
    """Each shell gets its script, and the script's requests are answered."""
    assert f"=complete_{shell}" in command(_CLAWKER_FW_COMPLETE=f"source_{shell}").out
    variables = {
        "_CLAWKER_FW_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "clawker-fw dri",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": "clawker-fw dri",
        "COMP_CWORD": "1",
    }
    answer = command(**variables)
    assert answer.code == 0
    assert "drift" in answer.out
    assert "status" not in answer.out


def test_completion_where_nothing_can_be_written(tmp_path: Path) -> None:
    """That is no bug, and the hint says how to get the script anyway. Otherwise, it is installed for the shell."""
    home = tmp_path / "home"
    line = f"exec 2>&1; {sys.executable} -m clawker_fw --install-completion; echo $?"

    def install() -> str:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HOME": str(home)}
        return subprocess.check_output(["bash", "-c", line], env=environment, text=True)

    home.write_text("a file, so that nobody can make a folder here, not even root\n")
    refused = install()
    assert "error[completion-unwritable]" in refused
    assert "clawker-fw --show-completion" in refused
    assert refused.endswith("\n6\n")
    home.unlink()
    home.mkdir()
    assert install().endswith("\n0\n")
    assert "complete_bash" in (home / ".bash_completions" / "clawker-fw.sh").read_text()
