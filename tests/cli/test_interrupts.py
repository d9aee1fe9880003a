"""Ctrl-C while the program starts: no traceback, the usual exit code, and nothing docker would run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clawker_fw.agents.attachment import REFUSAL

INTERRUPTED_AT = """
import importlib.abc, signal, sys

module, sys.argv = sys.argv[1], ["clawker-fw", *sys.argv[2:]]
signal.signal(signal.SIGINT, signal.default_int_handler)  # the shell that runs the tests may ignore it

class AtImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, AtImport())
from clawker_fw.__main__ import main
main()
"""

MODULES = (
    "clawker_fw.cli",
    "typer",
    "clawker_fw.cli.parameters",
    "OWN",
)


def interrupted(
    at: str, *arguments: str, folder: Path, script: str = INTERRUPTED_AT
) -> subprocess.CompletedProcess[str]:
    """Run a command that is interrupted when it imports a module."""
    return subprocess.run(
        [sys.executable, "-c", script, at, *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "DOCKER_HOST": f"unix://{folder}/none.sock"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("line", [("rules", "check"), ("agent", "flags")], ids=" ".join)
def test_ctrl_c_at_an_import(module: str, line: tuple[str, ...], tmp_path: Path) -> None:
    """The command ends with 130, and an answer for docker is a refusal."""
    (tmp_path / "clawker-fw.yaml").write_text("rules: []\n")
    ended = interrupted(module.replace("OWN", f"clawker_fw.cli.{line[0]}"), *line, folder=tmp_path)
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 130
    assert ended.stdout.strip() == (REFUSAL if line[0] == "agent" else "")
    if line[0] == "agent":
        json = interrupted(
            module.replace("OWN", f"clawker_fw.cli.{line[0]}"), *line, "--json", folder=tmp_path
        ).stdout
        assert json.startswith((REFUSAL, '{"schema":'))


def test_an_ignored_interrupt_stays_ignored(tmp_path: Path) -> None:
    """A background command of a script, or one under nohup, continues."""
    (tmp_path / "clawker-fw.yaml").write_text("rules: []\n")
    script = INTERRUPTED_AT.replace("default_int_handler)", "SIG_IGN)")
    ended = interrupted("typer", "rules", "check", folder=tmp_path, script=script)
    assert (ended.returncode, "Interrupted" in ended.stderr) == (0, False)
