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
from clawker_fw.model import File, Files
from clawker_fw.stack.container import VOLUME
from clawker_fw.stack.files import FOLDER, found

CHUNK = 1 << 16
"""How much is read at once: small enough for an allocator to give it back."""

_NOBODY = 65534
"""Who the owner of a file is in a container when he is not in its namespace (Linux, user_namespaces(7))."""


def pack(files: Files) -> bytes:
    """Return a tar of the files and the folders they are in."""
    buffer = io.BytesIO()
    folders: set[PurePosixPath] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, file in files.items():
            for folder in reversed(PurePosixPath(path).parents[:-1]):
                if folder not in folders:
                    folders.add(folder)
                    archive.addfile(_header(str(folder), tarfile.DIRTYPE, FOLDER))
            archive.addfile(_header(path, tarfile.REGTYPE, file), io.BytesIO(file.content))
    return buffer.getvalue()


def _header(path: str, kind: bytes, file: File) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type, header.size, header.mode = kind, len(file.content), file.mode
    header.uid, header.gid = file.owner
    return header


def unpack(chunks: Iterator[bytes], known: Files = NOTHING, root: tuple[int, int] = (0, 0)) -> dict[str, File]:
    """Return the files of a tar by their path below its one top folder.

    A link reads as `-> its target`. A folder has no entry unless its owner or mode is another than we give: then
    one whose path is absolute, which no file's is. `root` is who a container's root is for the engine. A file that
    is as it is `known` is that very object.

    Raises:
        EngineError: when it is no whole tar.
    """
    files: dict[str, File] = {}
    with _readable(), tarfile.open(fileobj=Reading(chunks), mode="r|", bufsize=CHUNK) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if member.isfile():
                before = known.get(path)
                stream = archive.extractfile(member)
                content = _content(stream, before.content if before else b"") if stream else b""
                file = _found(content, member, root)
                files[path] = before if before is not None and before == file else file
            elif member.isdir():
                if (folder := _found(b"", member, root)) != FOLDER:
                    files[f"{VOLUME}/{path}".rstrip("/")] = folder
            else:
                files[path] = _found(f"-> {member.linkname}".encode(), member, root)
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


def _found(content: bytes, member: tarfile.TarInfo, root: tuple[int, int]) -> File:
    owner = (_inside(member.uid, root[0]), _inside(member.gid, root[1]))
    return found(content, stat.S_IMODE(member.mode), owner)


def _inside(identity: int, root: int) -> int:
    """Return who a user or group of the engine's is in a container: nobody, if it does not know them."""
    return identity - root if identity >= root else _NOBODY


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
