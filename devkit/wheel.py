"""The wheel of this checkout, for tests that install or compare it."""

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from devkit.stacks import CHECKOUT

_NOT_COPIED = shutil.ignore_patterns(".*", "bin", "__pycache__", "_build")


def copied(target: Path) -> Path:
    """Copy what a wheel is built from, because building replaces programs that tests run, and return the copy."""
    return Path(shutil.copytree(CHECKOUT, target, ignore=_NOT_COPIED))


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder with the checkout and its wheel, which is removed with this process."""
    folder = tempfile.TemporaryDirectory(prefix="wheel-")
    source = copied(Path(folder.name, "source"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder.name, "."], cwd=source, check=True)
    return folder


def wheel() -> Path:
    return next(Path(_folder().name).glob("*.whl"))
