"""systemd's own checks of a unit: its syntax, and how exposed the service is."""

import os
import re
import subprocess
from pathlib import Path

from devkit.engines import install


def install_systemd() -> None:
    install({"systemd-analyze": "systemd"})


def verify(unit: Path, scope: str) -> tuple[int, str]:
    return _analyze(unit, scope, "verify", str(unit))


def exposure(unit: Path, scope: str) -> float:
    """Return how exposed a service is, from 0 to 10."""
    _, said = _analyze(unit, scope, "security", "--offline=true", "--no-pager", str(unit))
    (found,) = re.findall(r"Overall exposure level .*: ([\d.]+)", said)
    return float(found)


def _analyze(unit: Path, scope: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", f"--{scope}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(unit.parent)},  # a user's systemd wants one, wherever it is
    )
    return done.returncode, done.stdout + done.stderr
