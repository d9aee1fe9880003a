"""The real cosign and oras, built from their Go modules: Debian has neither. They are built once on a machine."""

import hashlib
from functools import cache
from pathlib import Path

from devkit.floor import Lock
from devkit.kept import KEPT
from devkit.programs import machine
from hatch_build import compile_program

_SOURCE = Path(__file__).with_name("signing")
_PACKAGES = {"cosign": "github.com/sigstore/cosign/v3/cmd/cosign", "oras": "oras.land/oras/cmd/oras"}


@cache
def signing_programs() -> Path:
    """Return the folder with both programs. Its name has the digest of what they are made from."""
    content = b"".join((_SOURCE / name).read_bytes() for name in ("go.mod", "go.sum"))
    folder = KEPT / "signing" / hashlib.sha256(content).hexdigest()[:16]
    with Lock(KEPT / "signing.lock"):  # another process may be building them
        for name, package in _PACKAGES.items():
            if not (folder / name).exists():
                fresh = folder / f"{name}.new"
                compile_program(_SOURCE, fresh, machine(), package=package)
                fresh.rename(folder / name)
    return folder
