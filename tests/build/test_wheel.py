"""The wheel is reproducible, complete, and can be built with Python alone."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from clawker_fw.settings import preset as presets
from devkit.release import install
from devkit.stacks import CHECKOUT
from devkit.wheel import copied, wheel
from hatch_build import toolchain


@pytest.fixture(scope="session")
def path_without_go(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which the machine's own Go, if any, only fails."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "go").write_text("#!/bin/sh\necho the machine's own Go was called >&2\nexit 1\n")
    (folder / "go").chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory, path_without_go: str) -> list[Path]:
    """Two wheels: one built in an isolated environment, as by `pip install .`, and one in this environment."""
    isolated = tmp_path_factory.mktemp("isolated")
    source = copied(tmp_path_factory.mktemp("sources") / "isolated")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    environment = {**os.environ, "PATH": path_without_go}
    subprocess.run([*pip, isolated, "."], cwd=source, env=environment, check=True)
    return [next(isolated.glob("*.whl")), wheel()]


def test_two_builds_are_the_same_bytes(wheels: list[Path]) -> None:
    """A wheel does not depend on the machine, the time or the folder."""
    assert wheels[0].name == wheels[1].name
    digests = {hashlib.sha256(each.read_bytes()).hexdigest() for each in wheels}
    assert len(digests) == 1


def test_the_wheel_is_complete(wheels: list[Path]) -> None:
    """It contains programs for both architectures, the example and the licences."""
    with zipfile.ZipFile(wheels[0]) as archive:
        names = set(archive.namelist())
    for program in ("coredns", "fwctl"):
        for architecture in ("amd64", "arm64"):
            assert f"clawker_fw/bin/{program}-linux-{architecture}" in names
    templates = {f"clawker_fw/templates/{path.name}" for path in (CHECKOUT / "templates").iterdir()}
    assert {*templates, "clawker_fw/py.typed"} <= names
    assert {f"clawker_fw/settings/presets/{each}.yaml" for each in presets.names()} <= names
    assert {"LICENSE", "NOTICE"} <= {name.rpartition("/")[2] for name in names}
    version = wheels[0].name.split("-")[1]
    own = f"clawker_fw-{version}"
    assert {name.partition("/")[0] for name in names} == {"clawker_fw", f"{own}.dist-info", f"{own}.data"}
    assert {name.removeprefix(f"{own}.data/data/") for name in names if ".data/" in name} == {
        "share/man/man1/clawker-fw.1",
        "share/man/man5/clawker-fw.yaml.5",
    }
    assert not [name for name in names if "__pycache__" in name]


def test_the_bill_of_materials_is_complete(wheels: list[Path], tmp_path: Path) -> None:
    """It is valid, with each program's digest, the modules linked into it, and the wheel's requirements."""
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(tmp_path)
    (place,) = tmp_path.glob("*.dist-info/sboms/clawker-fw.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(place.read_text()) is None
    bill = json.loads(place.read_text())
    components = {each["bom-ref"]: each for each in bill["components"]}
    inside = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    programs = sorted((tmp_path / "clawker_fw" / "bin").iterdir())
    assert len(programs) == 4
    for program in programs:
        (digest,) = components[f"file:{program.name}"]["hashes"]
        assert digest["content"] == hashlib.sha256(program.read_bytes()).hexdigest()
        listing = subprocess.run(
            [toolchain(), "version", "-m", program], capture_output=True, text=True, check=True
        ).stdout
        linked = {"@".join(each) for each in re.findall(r"^\t(?:dep|=>)\t(\S+)\t(\S+)", listing, re.MULTILINE)}
        go = re.findall(r": go(\S+)", listing)[0]
        named = {each.removeprefix("pkg:golang/") for each in inside[f"file:{program.name}"]}
        assert named == {*linked, f"stdlib@{go}"}
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    required = re.findall(r"^Requires-Dist: (.*)$", metadata.read_text("utf-8"), re.MULTILINE)
    told = {each["properties"][0]["value"] for each in bill["components"] if "properties" in each}
    assert told == set(required)


@pytest.fixture(scope="session")
def installed(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with only the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("wheel") / "environment"
    return Path(install(wheels[0], sys.executable, folder)).with_name("clawker-fw")


def test_the_installed_program_runs(installed: Path, host: str, clean_project: str, tmp_path: Path) -> None:
    """From an empty environment, the firewall is created and removed."""

    def program(*arguments: str) -> str:
        command = [str(installed), "--host", host, "--project", clean_project, *arguments]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        outcome = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return str(outcome.stdout)

    assert program("--version").startswith("clawker-fw 0.")
    assert (installed.parent.parent / "share" / "man" / "man1" / "clawker-fw.1").is_file()
    program("init")
    program("run")
    assert program("drift").splitlines()[0].startswith("current")
    program("down")


def test_a_release_is_the_same_from_wheel_and_checkout(installed: Path) -> None:
    """The build SHA does not depend on how the package was installed."""
    ask = "from clawker_fw.stack.release import Release; print(Release.installed().build_sha)"
    pythons = (installed.with_name("python"), Path(sys.executable))
    shas = {subprocess.run([python, "-c", ask], capture_output=True, check=True).stdout for python in pythons}
    assert len(shas) == 1
