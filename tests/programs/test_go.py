"""The Go programs' own tests, as part of the whole."""

import subprocess

import pytest

from devkit.stacks import CHECKOUT
from hatch_build import toolchain


@pytest.mark.parametrize("module", ["go", "devkit/peer"])
def test_go(module: str) -> None:
    """`go test` passes, and the code is formatted."""
    go = toolchain()
    outcome = subprocess.run(
        [go, "test", "./..."], cwd=CHECKOUT / module, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    unformatted = subprocess.run(
        [go.with_name("gofmt"), "-l", "."], cwd=CHECKOUT / module, capture_output=True, text=True, check=True
    )
    assert unformatted.stdout == ""
