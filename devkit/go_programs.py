"""Programs for tests that are built from Go modules, once on a machine."""

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

from devkit.kept import KEPT, make_once
from devkit.programs import machine
from hatch_build import compile_program, go_environment, toolchain


def go_program(name: str) -> Path:
    """Return the program of the folder of `devkit` with this name. It is kept by the digest of its files."""
    source = Path(__file__).with_name(name)
    content = b"".join(path.read_bytes() for path in sorted(source.iterdir()))
    return _kept(name, hashlib.sha256(content).hexdigest()[:16], source, ".")


def published_program(name: str, module: str, version: str, digest: str) -> Path:
    return _kept(name, version, module_folder(module, version, digest), f"./cmd/{name}")


def _kept(name: str, version: str, source: Path, package: str) -> Path:
    built = KEPT / name / f"{name}-{version}"
    built.parent.mkdir(parents=True, exist_ok=True)
    make_once(built, lambda made: compile_program(source, made, machine(), package=package))
    return built


def module_folder(module: str, version: str, digest: str) -> Path:
    """Return the folder of a published module with this digest, with its own `go.sum`, or raise `ValueError`."""
    command = [str(toolchain()), "mod", "download", "-json", f"{module}@{version}"]
    outside = tempfile.gettempdir()  # of any module
    done = subprocess.run(
        command, cwd=outside, env=go_environment(machine()), check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    if found["Sum"] != digest:
        raise ValueError(f"{module}@{version} has the digest {found['Sum']}, not {digest}")
    return Path(found["Dir"])
