"""The tar format of the engine's archive API, which transfers the files of a container's volume."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from clawker_fw.engine import bounds
from clawker_fw.engine.port import NOTHING
from clawker_fw.errors import EngineError
from clawker_fw.model.files import File, Files
from clawker_fw.stack.container import VOLUME
from clawker_fw.stack.files import FOLDER

CHUNK = 1 << 16
"""Bytes per read, few enough for the allocator to return the memory to the system."""

_NOBODY = 65534
"""The owner that a container sees for files of users outside its user namespace (user_namespaces(7))."""


def pack(files: Files) -> bytes:
    """Return a tar with the files and their folders."""
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
    """Return the files of a tar by their path below its single top folder.

    Links, folders and `known` are as in `EngineReader.files`. `root` is the container's root user and group on the
    host.

    Raises:
        EngineError: when the tar is incomplete or damaged, or longer than `bounds.VOLUME`.
    """
    files: dict[str, File] = {}
    stream = IteratorReader(_bounded(chunks))
    with _readable(), tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
        for number, member in enumerate(archive):
            if number == bounds.ENTRIES:
                raise tarfile.ReadError(f"there are more than {bounds.ENTRIES:,}")
            path = member.name.partition("/")[2]
            if content := archive.extractfile(member) if member.isfile() else None:
                before, file = known.get(path), _read_member(content.read(), member, root)
                files[path] = before if before is not None and before == file else file
            elif member.isdir():
                folder = _read_member(b"", member, root)
                if folder != FOLDER:
                    files[f"{VOLUME}/{path}".rstrip("/")] = folder
            else:
                files[path] = _read_member(b"-> " + os.fsencode(member.linkname), member, root)
        if stream.ended:
            raise tarfile.ReadError("its end is missing")
        while stream.read(CHUNK):  # the engine finishes only when everything has been read
            pass
    return files


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > bounds.VOLUME:
            raise tarfile.ReadError(f"they are longer than {bounds.VOLUME >> 20:,} MiB")
        yield chunk


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise EngineError(
            "archive-unreadable",
            f"The files of a container can't be read: {error}.",
            hint="Try again. If it persists, recreate Envoy and CoreDNS with `clawker-fw run --force-recreate`.",
        ) from error


def _read_member(content: bytes, member: tarfile.TarInfo, root: tuple[int, int]) -> File:
    owner = (_inside(member.uid, root[0]), _inside(member.gid, root[1]))
    mode = stat.S_IMODE(member.mode)
    return File(content, mode, owner, secret=not mode & stat.S_IROTH)  # unless everyone may read it there


def _inside(identity: int, root: int) -> int:
    """Translate a user or group id of the host into the container's; an unmapped one is nobody."""
    return identity - root if identity >= root else _NOBODY


class IteratorReader(io.RawIOBase):
    """A file object that reads from an iterator of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.ended = False
        """Whether a read found no more data."""

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        self._rest = self._rest or next(self._chunks, b"")
        chunk, self._rest = self._rest[:size], self._rest[size:]
        self.ended = not chunk
        return chunk
