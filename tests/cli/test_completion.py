"""Shell completion, requested as shells do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devkit.stacks import CHECKOUT
from tests.cli.conftest import Command


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
    """An unwritable folder is not a bug, and the hint shows how to get the script. Otherwise it is installed."""
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
