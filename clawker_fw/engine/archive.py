"""The two formats in which a container's inside is read and written: tar (the archive API) and fwctl's JSON."""

import io
import stat
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from clawker_fw.errors import EngineError
from clawker_fw.model import Files, Probe
from clawker_fw.stack.container import HELPER


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
                    header.type, header.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(header)
            header = tarfile.TarInfo(path)
            header.size, header.mode = len(content), _mode(path)
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def unpack(content: bytes, root: tuple[int, int] = (0, 0)) -> dict[str, bytes]:
    """Return the files of a tar by their path below its one top folder.

    A link reads as `-> its target`. A file with another owner or mode than we give reads with a first line that
    says so: it is not what we made, whatever it holds. `root` is who a container's root is for the engine.
    """
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if member.isfile():
                stream = archive.extractfile(member)
                files[path] = _irregular(path, member, root) + (stream.read() if stream else b"")
            elif not member.isdir():
                files[path] = f"-> {member.linkname}".encode()
    return files


def _irregular(path: str, member: tarfile.TarInfo, root: tuple[int, int]) -> bytes:
    mode, owner = stat.S_IMODE(member.mode), (member.uid, member.gid)
    if (mode, owner) == (_mode(path), root):
        return b""
    return f"[mode {mode:04o}, owner {member.uid}:{member.gid}]\n".encode()


def _mode(path: str) -> int:
    return 0o755 if path == HELPER else 0o644


def probe(answer: Mapping[str, Any]) -> Probe:
    """Read what `fwctl probe` printed. The helper of an earlier release knows less, and is drift by itself.

    Raises:
        EngineError: when it is not what a probe answers.
    """
    try:
        return Probe(
            build=answer["build"],
            versions=dict(answer["versions"] or {}),
            refused=tuple(answer.get("refused") or ()),
            connections=answer["connections"],
            addresses=tuple(answer["addresses"]),
            claimed=answer["claimed"],
            others=tuple(answer.get("others") or ()),
            network=tuple(answer["network"]),
            program=tuple(answer.get("program") or ()),
            processes=tuple(answer.get("processes") or ()),
            unhealthy=answer.get("unhealthy", "it can't tell"),
            error=answer["error"],
        )
    except (KeyError, TypeError) as error:
        raise EngineError("probe-unreadable", f"A probe answered in a form that is not known: {error}.") from error
