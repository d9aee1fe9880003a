"""Files in the state folder after a power loss, on a full disk, and for readers."""

import os
import stat
from pathlib import Path

import pytest

from clawker_fw.private_files import make_private, write_private


class Disk:
    """Records what was written to the disk, and where files were moved, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        sync, replace = os.fsync, Path.replace

        def synced(handle: int) -> None:
            sync(handle)
            self.done.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")

        def replaced(path: Path, target: Path) -> Path:
            self.done.append(f"rename {path.name} {target.name}")
            return replace(path, target)

        patch.setattr(os, "fsync", synced)
        patch.setattr(Path, "replace", replaced)


def test_a_power_loss_leaves_one_of_two_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new content is synced before the rename, and the rename before the write returns."""
    disk = Disk(monkeypatch)
    write_private(tmp_path / "root.key", b"secret")
    assert disk.done == ["sync .root.key.new", "rename .root.key.new root.key", f"sync {tmp_path.name}"]
    assert stat.S_IMODE((tmp_path / "root.key").stat().st_mode) == 0o600


def test_a_new_folder_survives_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new folder is synced in its parent folder."""
    disk = Disk(monkeypatch)
    make_private(tmp_path / "one" / "two")
    assert disk.done == [f"sync {tmp_path.name}", "sync one"]
    make_private(tmp_path / "one" / "two")
    assert len(disk.done) == 2


def test_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without sync for folders is still usable."""
    sync = os.fsync

    def refuses(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuses)
    write_private(tmp_path / "unit", b"new")
    assert (tmp_path / "unit").read_bytes() == b"new"
