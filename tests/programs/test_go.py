"""The Go programs' own tests."""

import subprocess
from pathlib import Path

from devkit.engines import install
from devkit.programs import machine
from devkit.stacks import CHECKOUT
from hatch_build import go_environment, toolchain

IN_MEMORY = Path("/dev/shm")  # noqa: S108 - Go makes folders of its own in it
"""The folder for files of Go's tests: on a disk, most of their time would be waiting for writes."""

NOT_VETTED = "-vet=off"
"""The session `lint` already runs `go vet` on everything that these tests compile."""


SIDE_BY_SIDE = (
    "arp",
    "attempts",
    "hotfile",
    "lookups",
    "otel",
    "page",
    "policy",
    "refusals",
    "signing",
    "statussocket",
)
"""Packages with concurrent goroutines, except `hot`, whose tests take a minute, and `start`.

The race detector needs cgo, with which Go can't change the capabilities of all threads, as `start` does.
"""


def test_go() -> None:
    """`go test` passes, and the code is formatted. `test_no_data_races` runs the other packages."""
    go = toolchain()
    packages = subprocess.run(
        [go, "list", "./..."],
        cwd=CHECKOUT / "go",
        env=go_environment(machine()),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    apart = [each for each in packages if each.partition("/internal/")[2] not in SIDE_BY_SIDE]
    assert len(apart) == len(packages) - len(SIDE_BY_SIDE)
    outcome = subprocess.run(
        [go, "test", NOT_VETTED, *apart],
        cwd=CHECKOUT / "go",
        env=go_environment(machine()) | {"TMPDIR": str(IN_MEMORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    unformatted = subprocess.run(
        [go.with_name("gofmt"), "-l", "go", "devkit"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert unformatted.stdout == ""


def test_no_data_races() -> None:
    """Go's race detector finds nothing in packages with concurrent goroutines. It needs a C compiler."""
    install({"gcc": "gcc", "/usr/include/stdlib.h": "libc6-dev"})
    outcome = subprocess.run(
        [toolchain(), "test", "-race", NOT_VETTED, *(f"./internal/{name}" for name in SIDE_BY_SIDE)],
        cwd=CHECKOUT / "go",
        env=go_environment(machine()) | {"CGO_ENABLED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
