"""Our images have the same bytes everywhere, and ids that are known before an engine has them."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from clawker_fw.errors import FirewallError, SettingsError
from clawker_fw.model import EngineFacts, Sibling
from clawker_fw.stack import images
from clawker_fw.stack.image_tar import BuiltImage, Entry
from clawker_fw.stack.release import Release


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    """A small image with a file of an odd size and a link."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF" + b"x" * 1000)
    entries = (Entry("bin/program", program, 0o755), Entry("bin/link", link="program"))
    return BuiltImage("example/image", "1", "amd64", entries)


def members(archive: bytes) -> dict[str, bytes]:
    """Return the regular files of a tar."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {each.name: stream.read() for each in tar if (stream := tar.extractfile(each))}


def test_the_layer_is_a_tar_without_traces_of_this_machine(image: BuiltImage) -> None:
    """Order, owners and times are constant, and no engine has to choose the mode of a folder."""
    files = members(b"".join(image.archive()))
    layer = files[json.loads(files["manifest.json"])[0]["Layers"][0]]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = [(each.name, each.mode, each.uid, each.gid, each.mtime, each.linkname) for each in tar]
    assert found == [
        ("bin", 0o755, 0, 0, 0, ""),
        ("bin/program", 0o755, 0, 0, 0, ""),
        ("bin/link", 0o777, 0, 0, 0, "program"),
    ]


def test_the_same_content_is_the_same_image(image: BuiltImage, tmp_path: Path) -> None:
    """The path and times of source files don't matter, only their content does."""
    other = tmp_path / "elsewhere"
    other.write_bytes((tmp_path / "program").read_bytes())
    moved = BuiltImage(image.name, "1", "amd64", (Entry("bin/program", other, 0o755), image.entries[1]))
    assert moved.ids == image.ids
    assert b"".join(moved.archive()) == b"".join(image.archive())
    other.write_bytes(b"other")
    changed = BuiltImage(image.name, "1", "amd64", moved.entries)
    assert changed.ids != image.ids
    assert changed.reference != image.reference


@pytest.mark.parametrize(
    ("platform", "machine", "complaint"),
    [
        ("darwin", "arm64", "on Linux only"),
        ("linux", "aarch64", "for linux/arm64, and the engine runs linux/amd64"),
    ],
)
def test_where_envoy_cannot_be_bundled_it_is_said_what_to_set(
    platform: str, machine: str, complaint: str, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there is no bundled Envoy for the engine, the error names the setting to use."""
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(SettingsError, match=complaint) as caught:
        images.image_of(Sibling.ENVOY, "bundled", release, EngineFacts("", "", "amd64"))
    assert "images.envoy" in caught.value.hint


def test_an_architecture_that_was_not_built_is_told(release: Release) -> None:
    """A missing program for an architecture gives an error, not a traceback."""
    with pytest.raises(FirewallError, match="linux/riscv64"):
        images.image_of(Sibling.COREDNS, "bundled", release, EngineFacts("", "", "riscv64"))
