"""What an ELF file needs to be loaded: libraries by name, folders in which it has them looked for, and a loader.

Formats: ELF-64 specification 1.5, chapters "ELF Header", "Program Header Table" and "Dynamic Table". All machines
for which there is a release are little-endian and have 64 bits.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<QQ")
_LOAD, _DYNAMIC_SEGMENT, _INTERPRETER = 1, 2, 3
_NULL, _NEEDED, _STRINGS, _STRINGS_SIZE, _RPATH, _RUNPATH = 0, 1, 5, 10, 15, 29


@dataclass(frozen=True, slots=True)
class Needs:
    """What an ELF file needs. `folders` may begin with `$ORIGIN`, which stands for the folder of the file."""

    libraries: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    loader: str = ""


def needs(path: Path) -> Needs | None:
    """Return what a file needs, or None if it is no ELF file of 64 bits.

    Raises:
        OSError: when it can't be read.
        ValueError: when it is damaged.
    """
    with path.open("rb") as file:
        if not (start := file.read(_HEADER.size)).startswith(_MAGIC):
            return None
        try:
            return _needs(file, start)
        except (struct.error, IndexError) as error:
            raise ValueError(f"{path} is a damaged ELF file") from error


def _needs(file: BinaryIO, header: bytes) -> Needs:
    _, _, _, _, table, _, _, _, size, count, *_ = _HEADER.unpack(header)
    segments = [_SEGMENT.unpack_from(_read(file, table + size * each, size)) for each in range(count)]
    loader, entries = "", []
    for kind, _, offset, _, _, length, *_ in segments:
        if kind == _INTERPRETER:
            loader = os.fsdecode(_read(file, offset, length).rstrip(b"\0"))
        elif kind == _DYNAMIC_SEGMENT:
            entries = list(_DYNAMIC.iter_unpack(_read(file, offset, length)))
    values = dict(reversed(entries))
    if _STRINGS not in values:
        return Needs(loader=loader)
    strings = _read(file, _offset(segments, values[_STRINGS]), values[_STRINGS_SIZE])

    def text(tag: int) -> list[str]:
        found = []
        for each, at in entries:
            if each == _NULL:
                break
            if each == tag:
                found.append(os.fsdecode(strings[at : strings.index(b"\0", at)]))
        return found

    paths = text(_RUNPATH) or text(_RPATH)
    return Needs(tuple(text(_NEEDED)), tuple(each for path in paths for each in path.split(":") if each), loader)


def _offset(segments: list[tuple[int, ...]], address: int) -> int:
    """Return where in the file is what is loaded at an address."""
    for kind, _, offset, start, _, length, *_ in segments:
        if kind == _LOAD and start <= address < start + length:
            return offset + address - start
    raise IndexError(address)


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    if len(found := file.read(length)) != length:
        raise IndexError(offset)
    return found
