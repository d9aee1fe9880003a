"""Style, the direction of data, and types, checked beside all other tests."""

import subprocess
import sys

import pytest

from devkit.stacks import CHECKOUT


@pytest.mark.parametrize("session", ["lint", "types"])
def test_check(session: str) -> None:
    """The session finds nothing."""
    command = [sys.executable, "-m", "nox", "--session", session]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
