"""Files as the archive API hands them over: content, and by whom they are held."""

import io
import tarfile

import pytest

from clawker_fw.engine import archive


def held_by(owner: tuple[int, int]) -> bytes:
    """Return a tar with one file that belongs to somebody."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("fw/boot/Corefile")
        header.size, header.mode, (header.uid, header.gid) = 1, 0o644, owner
        tar.addfile(header, io.BytesIO(b"x"))
    return buffer.getvalue()


@pytest.mark.parametrize("root", [(0, 0), (100000, 200000)])
def test_files_belong_to_the_containers_root(root: tuple[int, int]) -> None:
    """Whoever that is for the engine; a file of anybody else is not what was made."""
    assert archive.unpack(iter([held_by(root)]), root=root) == {"boot/Corefile": b"x"}
    stranger = archive.unpack(iter([held_by((65532, 0))]), root=root)
    assert stranger == {"boot/Corefile": b"[mode 0644, owner 65532:0]\nx"}
