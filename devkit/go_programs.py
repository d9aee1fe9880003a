"""Programs for tests that are built from their Go modules in a folder of `devkit`, once on a machine."""

import hashlib
from pathlib import Path

from devkit.floor import Lock
from devkit.kept import KEPT
from devkit.programs import machine
from hatch_build import compile_program


def go_program(name: str, *, package: str = ".") -> Path:
    """Return the program of the folder with this name. It is kept by the digest of its files."""
    source = Path(__file__).with_name(name)
    content = b"".join(path.read_bytes() for path in sorted(source.iterdir()))
    built = KEPT / name / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    with Lock(KEPT / f"{name}.lock"):  # another process may be building it
        if not built.exists():
            fresh = built.with_suffix(".new")
            compile_program(source, fresh, machine(), package=package)
            fresh.rename(built)
    return built
