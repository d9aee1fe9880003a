"""The real Prometheus, built from its Go modules: Debian's is older than what it receives by OTLP here.

It is built once on a machine, without service discovery and without its pages: that takes a few minutes.
"""

from functools import cache
from pathlib import Path

from devkit.go_programs import go_program

_PACKAGE = "github.com/prometheus/prometheus/cmd/prometheus"


@cache
def prometheus_program() -> Path:
    """Return the program."""
    return go_program("prometheus", package=_PACKAGE, tags=["remove_all_sd"])
