"""Builds a release into `dist`: `./dev release`. Two builds of one commit give the same bytes."""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from devkit.demo import Show, demonstrate
from devkit.host import some_engine
from devkit.stacks import CHECKOUT
from hatch_build import ARCHITECTURES, ONE_ARCHITECTURE

DIST = CHECKOUT / "dist"
CHECKSUMS = "SHA256SUMS"
NOTES = "RELEASE-NOTES.md"
COMPLETIONS = {"bash": "clawker-fw.bash", "zsh": "_clawker-fw", "fish": "clawker-fw.fish"}

_ROOT = "root-component"
"""What `cyclonedx-py` calls the project."""

_EVERY_PLATFORM = "any"


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def build(target: Path) -> None:
    target.mkdir(parents=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH") or _commit_time()}
    version = project()["version"]
    _hatchling("sdist", target, CHECKOUT, environment)
    with tempfile.TemporaryDirectory() as folder:
        (source,) = target.glob("*.tar.gz")
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
        for architecture in ("", *ARCHITECTURES):
            chosen = {**environment, ONE_ARCHITECTURE: architecture}
            _hatchling("wheel", target, Path(folder, source.name.removesuffix(".tar.gz")), chosen)
    for page in (CHECKOUT / "docs" / "man").glob("man*/*"):
        shutil.copyfile(page, target / page.name)
    for shell, name in COMPLETIONS.items():
        asked = {**os.environ, "_CLAWKER_FW_COMPLETE": f"source_{shell}"}
        command = [sys.executable, "-m", "clawker_fw"]
        script = subprocess.run(command, env=asked, check=True, capture_output=True).stdout
        (target / name).write_bytes(script.strip() + b"\n")  # zsh reads the first line
    (target / f"clawker-fw-{version}.cdx.json").write_text(_bill_of_materials(target, environment), "utf-8")
    (target / NOTES).write_text(notes((CHECKOUT / "CHANGELOG.md").read_text("utf-8"), version), "utf-8")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(target.iterdir())]
    (target / CHECKSUMS).write_text("".join(sums), "utf-8")


def _commit_time() -> str:
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout.strip()


def _hatchling(kind: str, target: Path, source: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    subprocess.run(command, cwd=source, env=environment, check=True, stdout=subprocess.DEVNULL)


def _bill_of_materials(target: Path, environment: Mapping[str, str]) -> str:
    (wheel,) = target.glob(f"*-{_EVERY_PLATFORM}.whl")
    with tempfile.TemporaryDirectory() as folder:
        python = install(wheel, sys.executable, Path(folder), "--constraint", str(CHECKOUT / "requirements.lock"))
        command = [sys.executable, "-m", "cyclonedx_py", "environment", python, "--output-reproducible"]
        options = ["--pyproject", str(CHECKOUT / "pyproject.toml")]
        made = subprocess.run([*command, *options], env=environment, check=True, capture_output=True).stdout
    bill: dict[str, Any] = json.loads(made)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if ".dist-info/sboms/" in name)
        inside: dict[str, Any] = json.loads(archive.read(name))
    bill["components"] += [part for part in inside["components"] if not part["bom-ref"].startswith("pkg:pypi/")]
    programs = [part for part in inside["dependencies"] if not part["ref"].startswith("pkg:pypi/")]
    (root,) = (entry for entry in bill["dependencies"] if entry["ref"] == _ROOT)
    root["dependsOn"] += [entry["ref"] for entry in programs if entry["ref"].startswith("file:")]
    bill["dependencies"] += programs
    return json.dumps(bill, indent=1) + "\n"


def section(changelog: str, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def notes(changelog: str, version: str) -> str:
    """Return the release notes of a version, or raise `ValueError` when the changelog has none."""
    if text := section(changelog, version):
        return text + "\n"
    raise ValueError(f"CHANGELOG.md has no section {version}.")


def check_tag(tag: str, changelog: str, version: str) -> None:
    """Require that a tag is for this version, and that the changelog is complete, or raise `ValueError`."""
    if tag != f"v{version}":
        raise ValueError(f"The tag {tag} is not v{version}, the version in pyproject.toml.")
    if section(changelog, "Unreleased"):
        raise ValueError(f"CHANGELOG.md still has unreleased changes: move them to a section {version}.")


def pythons() -> Iterator[str]:
    """Yield every Python on this machine that the package supports; pyenv's, too."""
    path = os.pathsep.join([*map(str, Path.home().glob(".pyenv/versions/*/bin")), os.environ["PATH"]])
    for classifier in project()["classifiers"]:
        version = classifier.removeprefix("Programming Language :: Python :: ")
        if not re.fullmatch(r"3\.\d+", version):
            continue
        if found := shutil.which(f"python{version}", path=path):
            yield found
        else:
            print(f"release: not checked with Python {version}, which is not here", file=sys.stderr)


def install(wheel: Path, python: str, folder: Path, *options: str) -> str:
    """Install a wheel into a new environment without Go or a compiler, and return the environment's Python."""
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", python, folder], check=True)
    installed = str(folder / "bin" / "python")
    began = time.monotonic()
    command = [*uv, "pip", "install", "--only-binary", ":all:", "--python", installed, *options, str(wheel)]
    subprocess.run(command, check=True, env={**os.environ, "PATH": "/nonexistent"})
    seconds = time.monotonic() - began
    print(f"release: installed {wheel.name} on {Path(python).name} in {seconds:.0f} s", file=sys.stderr)
    return installed


def check(target: Path) -> None:
    """Install each wheel that this machine can run on each Python, and run the demo with it."""
    fitting = [wheel for kind in (_EVERY_PLATFORM, platform.machine()) for wheel in target.glob(f"*{kind}.whl")]
    with some_engine() as host:
        for python in pythons():
            for wheel in fitting:
                with tempfile.TemporaryDirectory() as folder:
                    installed = install(wheel, python, Path(folder, "environment"))
                    Path(folder, "demo").mkdir()
                    demonstrate(host, Path(folder, "demo"), Show(), installed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev release", description=__doc__)
    parser.add_argument("--check", action="store_true", help="install the wheels, and run the demo with each")
    parser.add_argument("--tag", help="fail unless this tag fits the version and the changelog")
    arguments = parser.parse_args()
    if arguments.tag:
        check_tag(arguments.tag, (CHECKOUT / "CHANGELOG.md").read_text("utf-8"), project()["version"])
    shutil.rmtree(DIST, ignore_errors=True)
    build(DIST)
    if arguments.check:
        check(DIST)
    print((DIST / CHECKSUMS).read_text("utf-8"), end="")


if __name__ == "__main__":
    main()
