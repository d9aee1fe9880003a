"""Reading files from the archive API: contents, modes and owners."""

import io
import tarfile
from dataclasses import replace

import pytest

from clawker_fw.engine import archive
from clawker_fw.errors import EngineError
from clawker_fw.stack.files import FOLDER, public


def held_by(owner: tuple[int, int], mode: int = 0o644) -> bytes:
    """Return a tar with one file that has this owner."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("fw/boot/Corefile")
        header.size, header.mode, (header.uid, header.gid) = 1, mode, owner
        tar.addfile(header, io.BytesIO(b"x"))
    return buffer.getvalue()


def folders(**modes: int) -> bytes:
    """Return a tar of folders, each with a mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in modes.items():
            header = tarfile.TarInfo(f"fw/{name}".rstrip("/"))
            header.type, header.mode = tarfile.DIRTYPE, mode
            tar.addfile(header)
    return buffer.getvalue()


def test_folders_count_as_files_do() -> None:
    """A folder that others can write is reported, even the volume's root. A folder with our mode is not."""
    assert archive.unpack(iter([folders(**{"": 0o755, "hot": 0o755})])) == {}
    assert archive.unpack(iter([folders(**{"": 0o777, "hot": 0o1755, "boot": 0o755})])) == {
        "/fw": replace(FOLDER, mode=0o777),
        "/fw/hot": replace(FOLDER, mode=0o1755),
    }
    stranger = archive.unpack(iter([folders(boot=0o755)]), root=(1, 1))
    assert stranger == {"/fw/boot": replace(FOLDER, owner=(65534, 65534))}


@pytest.mark.parametrize("root", [(0, 0), (100000, 200000)])
def test_owners_are_those_that_the_container_knows(root: tuple[int, int]) -> None:
    """With remapped users, owners are translated to ids in the container."""
    assert archive.unpack(iter([held_by(root)]), root=root) == {"boot/Corefile": public(b"x")}
    stranger = archive.unpack(iter([held_by((root[0] + 65532, root[1]))]), root=root)
    assert stranger == {"boot/Corefile": replace(public(b"x"), owner=(65532, 0))}


def test_the_engines_own_root_is_nobody_in_a_remapped_container() -> None:
    """A file whose owner is unknown in the container never counts as root's."""
    found = archive.unpack(iter([held_by((0, 0))]), root=(100000, 200000))
    assert found == {"boot/Corefile": replace(public(b"x"), owner=(65534, 65534))}


@pytest.mark.parametrize("mode", [0o400, 0o640, 0o4600])
def test_what_not_everybody_may_read_is_taken_for_a_secret(mode: int) -> None:
    """A file that not everyone may read counts as a secret, even if this release does not know it."""
    (found,) = archive.unpack(iter([held_by((0, 0), mode)])).values()
    (other,) = archive.unpack(iter([held_by((0, 0), mode | 0o004)])).values()
    assert (found.mode, found.secret, other.secret) == (mode, True, False)


@pytest.mark.parametrize("missing", [1024, 2048, 3000, 5000])
def test_an_archive_without_its_end_is_none(missing: int) -> None:
    """A truncated archive is an error, wherever it ends."""
    packed = archive.pack({f"boot/{name}": public(name.encode() * 600) for name in "abc"}).rstrip(b"\0")
    whole = packed + bytes(-len(packed) % 512 + 1024)
    assert len(archive.unpack(iter([whole]))) == 3
    with pytest.raises(EngineError, match="can't be read"):
        archive.unpack(iter([whole[: len(whole) - missing]]))


@pytest.mark.parametrize("length", [1, 1000, 10_000])
def test_chunks_of_any_length_make_the_same_files(length: int) -> None:
    """Files do not depend on chunk lengths. A file equal to a known one is that same object, to save memory."""
    contents = {"a": b"same" * 900, "b": b"other" * 900, "e": b""}
    known = {name: public(content) for name, content in contents.items()} | {"b": public(b"other")}
    packed = archive.pack({f"fw/{name}": public(content) for name, content in contents.items()})
    chunks = (packed[start : start + length] for start in range(0, len(packed), length))
    found = archive.unpack(chunks, known)
    assert {name: file.content for name, file in found.items()} == contents
    assert {name for name, file in found.items() if file is known[name]} == {"a", "e"}


def test_a_link_target_of_any_bytes_is_its_content() -> None:
    """A link target that is not UTF-8 is an ordinary difference and does not fail the command."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        header = tarfile.TarInfo("fw/hot/x\udcff")
        header.type, header.linkname = tarfile.SYMTYPE, "/\udcff\udce9"
        tar.addfile(header)
    files = archive.unpack(iter([buffer.getvalue()]))
    assert {path: file.content for path, file in files.items()} == {"hot/x\udcff": b"-> /\xff\xe9"}
