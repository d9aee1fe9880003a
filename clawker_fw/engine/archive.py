"""The form in which a container's volume is written and read through the archive API: tar."""

import io
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from clawker_fw.engine.port import NOTHING
from clawker_fw.errors import EngineError
from clawker_fw.model import Files
from clawker_fw.stack.container import HELPER, VOLUME

_FOLDER_MODE = 0o755


CHUNK = 1 << 16
"""How much is read at once: small enough for an allocator to give it back."""


def pack(files: Files) -> bytes:
    """Return a tar of the files and the folders they are in; the helper is executable, all is root's."""
    buffer = io.BytesIO()
    folders: set[PurePosixPath] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, content in files.items():
            for folder in reversed(PurePosixPath(path).parents[:-1]):
                if folder not in folders:
                    folders.add(folder)
                    header = tarfile.TarInfo(str(folder))
                    header.type, header.mode = tarfile.DIRTYPE, _FOLDER_MODE
                    archive.addfile(header)
            header = tarfile.TarInfo(path)
            header.size, header.mode = len(content), _mode(path)
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def unpack(chunks: Iterator[bytes], known: Files = NOTHING, root: tuple[int, int] = (0, 0)) -> dict[str, bytes]:
    """Return the files of a tar by their path below its one top folder.

    A link reads as `-> its target`. A file with another owner or mode than we give reads with a first line that
    says so: it is not what we made, whatever it holds. A folder has no entry unless its owner or mode is another:
    then one whose path is absolute, which no file's is. `root` is who a container's root is for the engine. A file
    that is as it is `known` is that very object.

    Raises:
        EngineError: when it is no whole tar.
    """
    files: dict[str, bytes] = {}
    with _readable(), tarfile.open(fileobj=Reading(chunks), mode="r|", bufsize=CHUNK) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if member.isfile():
                stream = archive.extractfile(member)
                content = _content(stream, known.get(path, b"")) if stream else b""
                irregular = _irregular(_mode(path), member, root)
                files[path] = irregular + content if irregular else content
            elif member.isdir():
                if irregular := _irregular(_FOLDER_MODE, member, root):
                    files[f"{VOLUME}/{path}".rstrip("/")] = irregular
            else:
                files[path] = f"-> {member.linkname}".encode()
    return files


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise EngineError("archive-unreadable", f"The files of a container can't be read: {error}.") from error


def _content(stream: IO[bytes], known: bytes) -> bytes:
    """Read a file to its end, and keep nothing of it as long as it is the known one."""
    same = 0
    while chunk := stream.read(CHUNK):
        if not known.startswith(chunk, same):
            return b"".join((known[:same], chunk, *iter(partial(stream.read, CHUNK), b"")))
        same += len(chunk)
    return known if same == len(known) else known[:same]


def _irregular(wanted: int, member: tarfile.TarInfo, root: tuple[int, int]) -> bytes:
    mode, owner = stat.S_IMODE(member.mode), (member.uid, member.gid)
    if (mode, owner) == (wanted, root):
        return b""
    return f"[mode {mode:04o}, owner {member.uid}:{member.gid}]\n".encode()


def _mode(path: str) -> int:
    return 0o755 if path == HELPER else 0o644


class Reading(io.RawIOBase):
    """A readable file over an iterator of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        """Read from the first chunk on."""
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer at the end."""
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest += chunk
        size = len(self._rest) if size < 0 else size
        answer, self._rest = self._rest[:size], self._rest[size:]
        return answer
