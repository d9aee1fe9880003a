"""The real Prometheus, built from its Go modules: Debian's is older than what it receives by OTLP here.

It is built once on a machine, without service discovery and without its pages: that takes a few minutes.
"""

import hashlib
from functools import cache
from pathlib import Path

from devkit.floor import Lock
from devkit.kept import KEPT
from devkit.programs import machine
from hatch_build import compile_program

_SOURCE = Path(__file__).with_name("prometheus")
_KEPT = KEPT / "prometheus"
_PACKAGE = "github.com/prometheus/prometheus/cmd/prometheus"
_TAGS = ("remove_all_sd",)


@cache
def prometheus_program() -> Path:
    """Return the program. It is kept by the digest of what it is made from."""
    content = b"".join((_SOURCE / name).read_bytes() for name in ("go.mod", "go.sum"))
    built = _KEPT / f"prometheus-{hashlib.sha256(content).hexdigest()[:16]}"
    with Lock(KEPT / "prometheus.lock"):  # another process may be building it
        if not built.exists():
            fresh = built.with_suffix(".new")
            compile_program(_SOURCE, fresh, machine(), package=_PACKAGE, tags=_TAGS)
            fresh.rename(built)
    return built
