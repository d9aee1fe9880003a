"""Our images have the same bytes everywhere, and their ids are known before an engine loads them."""

from pathlib import Path

import pytest

from clawker_fw.errors import FirewallError, SettingsError
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.stacks import Sibling
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


def test_the_same_content_is_the_same_image(image: BuiltImage, tmp_path: Path) -> None:
    """Only the content of source files matters, not their paths or times."""
    other = tmp_path / "elsewhere"
    other.write_bytes((tmp_path / "program").read_bytes())
    moved = BuiltImage(image.name, "1", "amd64", (Entry("bin/program", other, 0o755), image.entries[1]))
    assert moved.ids == image.ids
    assert b"".join(moved.archive()) == b"".join(image.archive())
    other.write_bytes(b"other")
    changed = BuiltImage(image.name, "1", "amd64", moved.entries)
    assert changed.ids != image.ids
    assert changed.reference != image.reference


def test_where_envoy_cannot_be_bundled_it_is_said_what_to_set(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bundled Envoy for the engine, the error names the setting to use."""
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SettingsError, match="on Linux only") as caught:
        images.image_of(Sibling.ENVOY, "bundled", release, EngineFacts("", "", "amd64"))
    assert "images.envoy" in caught.value.hint


def test_an_architecture_that_was_not_built_is_told(release: Release) -> None:
    """A missing program for an architecture gives an error, not a traceback."""
    with pytest.raises(FirewallError, match="linux/riscv64"):
        images.image_of(Sibling.COREDNS, "bundled", release, EngineFacts("", "", "riscv64"))
