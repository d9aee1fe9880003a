"""systemd's own checks of a unit: its syntax, and how exposed the service is."""

import os
import re
import subprocess
from pathlib import Path

from devkit.engines import install


def install_systemd() -> None:
    """Install the Debian package of `systemd-analyze`, unless it is installed."""
    install({"systemd-analyze": "systemd"})


def verify(unit: Path, scope: str) -> tuple[int, str]:
    return _analyze(unit, scope, "verify", str(unit))


def exposure(unit: Path, scope: str) -> float | None:
    """Return how exposed a service is, from 0 to 10, or None before systemd 250, which can't check files."""
    code, said = _analyze(unit, scope, "security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"Overall exposure level .*: ([\d.]+)", said)
    if code and not found:
        assert _version() < 250, said  # noqa: S101, PLR2004 - an old one does not know the option
        return None
    assert found is not None  # noqa: S101 - the last line contains it
    return float(found[1])


def _version() -> int:
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[1])


def _analyze(unit: Path, scope: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", f"--{scope}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(unit.parent)},  # a user's systemd wants one, wherever it is
    )
    return done.returncode, done.stdout + done.stderr
