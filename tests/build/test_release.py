"""Releases are reproducible and complete, and a tag suffices to publish one."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from clawker_fw.errors import SettingsError
from clawker_fw.stack.release import Release
from devkit import release as releases
from devkit.go_programs import published_program
from devkit.stacks import CHECKOUT

VERSION = releases.project()["version"]
WHEELS = {
    "any": {"amd64", "arm64"},
    "manylinux_2_31_x86_64": {"amd64"},
    "manylinux_2_31_aarch64": {"arm64"},
}
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").iterdir())


def built(target: Path, **variables: str) -> Path:
    """Build a release in a process with other variables, and return its folder."""
    build = f"import pathlib; from devkit import release; release.build(pathlib.Path({str(target)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=CHECKOUT, env={**os.environ, **variables}, check=True)
    return target


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("release") / "dist")


@pytest.fixture(scope="module")
def packages(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The contents of each wheel, by platform."""
    folders = {platform: tmp_path_factory.mktemp("wheel") for platform in WHEELS}
    for platform, folder in folders.items():
        with zipfile.ZipFile(release / f"clawker_fw-{VERSION}-py3-none-{platform}.whl") as archive:
            archive.extractall(folder)
    return folders


def test_two_builds_are_the_same_bytes(release: Path, tmp_path: Path) -> None:
    """A release does not depend on the time, the time zone, the folder or the umask."""
    before = os.umask(0o077)
    try:
        again = built(tmp_path / "again", TZ="Asia/Tokyo", LC_ALL="C")
    finally:
        os.umask(before)
    assert (again / releases.CHECKSUMS).read_text() == (release / releases.CHECKSUMS).read_text()


def test_a_release_is_complete(release: Path) -> None:
    """It has wheels, sources, a bill of materials, manual pages, completion and notes, with checksums."""
    names = {path.name for path in release.iterdir()}
    assert names == {
        f"clawker_fw-{VERSION}.tar.gz",
        *(f"clawker_fw-{VERSION}-py3-none-{platform}.whl" for platform in WHEELS),
        f"clawker-fw-{VERSION}.cdx.json",
        "clawker-fw.1",
        "clawker-fw.yaml.5",
        "clawker-fw.bash",
        "_clawker-fw",
        "clawker-fw.fish",
        "RELEASE-NOTES.md",
        "SHA256SUMS",
    }
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=release, check=True)
    assert len((release / "SHA256SUMS").read_text().splitlines()) == len(names) - 1
    subprocess.run(["bash", "-n", release / "clawker-fw.bash"], check=True)


def test_an_index_takes_the_release(release: Path) -> None:
    """The metadata of all wheels and sources are valid, without a warning."""
    files = [*release.glob("*.whl"), *release.glob("*.tar.gz")]
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wheel_has_the_programs_of_its_platform(packages: Mapping[str, Path]) -> None:
    """Every wheel makes the same firewall. A missing program is an error that names the right wheel."""
    for platform, folder in packages.items():
        programs = (folder / "clawker_fw" / "bin").glob("*-linux-*64")
        assert {program.name.rpartition("-")[2] for program in programs} == WHEELS[platform]
        (tags,) = folder.glob("*.dist-info/WHEEL")
        assert f"Tag: py3-none-{platform}\n" in tags.read_text()
    assert len({Release(folder / "clawker_fw").build_sha for folder in packages.values()}) == 1
    with pytest.raises(SettingsError, match="no coredns for linux/arm64") as error:
        Release(packages["manylinux_2_31_x86_64"] / "clawker_fw").binary("coredns", "arm64")
    assert "py3-none-any.whl" in error.value.hint


def test_the_bill_of_materials_is_complete(release: Path) -> None:
    """It is valid CycloneDX with everything that the program needs, in locked versions, and nothing else."""
    text = (release / f"clawker-fw-{VERSION}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill: dict[str, Any] = json.loads(text)
    components = {component["bom-ref"]: component for component in bill["components"]}
    uses = {entry["ref"]: set(entry.get("dependsOn", [])) for entry in bill["dependencies"]}
    assert set(uses) == {"root-component", *components}
    assert set().union(*uses.values()) == set(components)
    names = {component["name"].lower().replace("_", "-") for component in components.values()}
    required = {re.split(r"[^\w-]", requirement)[0] for requirement in releases.project()["dependencies"]}
    assert required <= names
    assert {"coredns-linux-amd64", "fwctl-linux-arm64", "github.com/coredns/coredns", "stdlib"} <= names
    assert not {"pytest", "ruff", "cyclonedx-bom"} & names
    lock = (CHECKOUT / "requirements.lock").read_text().lower()
    for component in components.values():
        if component.get("purl", "").startswith("pkg:pypi/"):
            name = component["name"].lower().replace("_", "-")
            assert f"\n{name}=={component['version']} " in lock


CHANGELOG = """\
# Changelog

## Unreleased
{unreleased}
## 1.2.0

### New

- **A thing.**

## 1.10

Old.
"""


def test_notes_are_those_of_the_version() -> None:
    """The notes are the changelog's section for exactly this version."""
    text = CHANGELOG.format(unreleased="")
    assert releases.notes(text, "1.2.0") == "### New\n\n- **A thing.**\n"
    assert releases.notes(text, "1.10") == "Old.\n"
    with pytest.raises(ValueError, match=r"no section 1\.1\.$"):
        releases.notes(text, "1.1")


def test_a_tag_fits_version_and_changelog() -> None:
    """A tag for another version, or with unreleased changes, makes no release."""
    text = CHANGELOG.format(unreleased="")
    releases.check_tag("v1.2.0", text, "1.2.0")
    with pytest.raises(ValueError, match=r"tag v1\.2\.1 is not v1\.2\.0"):
        releases.check_tag("v1.2.1", text, "1.2.0")
    with pytest.raises(ValueError, match="unreleased changes"):
        releases.check_tag("v1.2.0", CHANGELOG.format(unreleased="\n- **Another.**\n"), "1.2.0")


ACTIONLINT = ("github.com/rhysd/actionlint", "v1.7.12", "h1:vQ4GeJN86C0QH+gTUQcs8McmK62OLT3kmakPMtEWYnY=")
"""Its module and the module's digest."""


def test_workflows_are_valid() -> None:
    """`actionlint` reports nothing."""
    program = published_program("actionlint", *ACTIONLINT)
    done = subprocess.run([program, *WORKFLOWS], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_pin_the_actions_of_others() -> None:
    """Each action is pinned to a commit, which nobody can move."""
    for workflow in WORKFLOWS:
        for action in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"\./.*|\S+@[0-9a-f]{40}", action)
