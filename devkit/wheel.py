"""The wheel of this checkout, for tests that install or compare it: built once for each state of the checkout."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from devkit.floor import PLACE, Lock
from devkit.stacks import CHECKOUT

_KEPT = PLACE / "wheels"
_NOT_COPIED = shutil.ignore_patterns(".*", "bin", "__pycache__", "_build")


def copied(target: Path) -> Path:
    """Copy what a wheel is built from, because building replaces programs that tests run, and return the copy."""
    return Path(shutil.copytree(CHECKOUT, target, ignore=_NOT_COPIED))


def wheel() -> Path:
    """Return the wheel, built in this environment from the checkout as it is now."""
    with Lock(PLACE / "wheels.lock"), tempfile.TemporaryDirectory() as folder:  # another process may be at it
        source = copied(Path(folder, "source"))
        kept = _KEPT / _digest(source)
        if not kept.exists():
            made = Path(folder, "made")
            pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
            subprocess.run([*pip, "--wheel-dir", made, "."], cwd=source, check=True)
            shutil.rmtree(_KEPT, ignore_errors=True)  # those of earlier states
            _KEPT.mkdir()
            shutil.copytree(made, fresh := _KEPT / "fresh")
            fresh.rename(kept)  # only a complete one has this name
    return next(kept.glob("*.whl"))


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder)} {path.stat().st_mode} {content}\n".encode())
    return whole.hexdigest()[:16]
