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


def folders(**modes: int) -> bytes:
    """Return a tar of folders with a mode each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in modes.items():
            header = tarfile.TarInfo(f"fw/{name}".rstrip("/"))
            header.type, header.mode = tarfile.DIRTYPE, mode
            tar.addfile(header)
    return buffer.getvalue()


def test_folders_count_as_files_do() -> None:
    """One that others may write into is seen, the volume's own too; one that is as we make it has no entry."""
    assert archive.unpack(iter([folders(**{"": 0o755, "hot": 0o755})])) == {}
    assert archive.unpack(iter([folders(**{"": 0o777, "hot": 0o1755, "boot": 0o755})])) == {
        "/fw": b"[mode 0777, owner 0:0]\n",
        "/fw/hot": b"[mode 1755, owner 0:0]\n",
    }
    assert archive.unpack(iter([folders(boot=0o755)]), root=(1, 1)) == {"/fw/boot": b"[mode 0755, owner 0:0]\n"}


@pytest.mark.parametrize("root", [(0, 0), (100000, 200000)])
def test_files_belong_to_the_containers_root(root: tuple[int, int]) -> None:
    """Whoever that is for the engine; a file of anybody else is not what was made."""
    assert archive.unpack(iter([held_by(root)]), root=root) == {"boot/Corefile": b"x"}
    stranger = archive.unpack(iter([held_by((65532, 0))]), root=root)
    assert stranger == {"boot/Corefile": b"[mode 0644, owner 65532:0]\nx"}
