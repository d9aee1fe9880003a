"""Style, the direction of data, and types, checked beside all other tests."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devkit.stacks import CHECKOUT


@pytest.mark.parametrize("session", ["lint", "types"])
def test_check(session: str) -> None:
    """The session finds nothing."""
    own = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    command = [sys.executable, "-m", "nox", "--session", session]
    done = subprocess.run(command, cwd=CHECKOUT, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_test_says_what_it_shows() -> None:
    """Every test has a docstring."""
    silent = [
        f"{path.name}: {node.name}"
        for path in (CHECKOUT / "tests").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []
