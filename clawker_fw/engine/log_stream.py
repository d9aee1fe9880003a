"""The log of a container, as an engine sends it: frames, and in each frame a line.

The Docker SDK reads a log frame by frame, which takes longer than the engine needs to send a million lines. Here
whatever has arrived is taken apart at once.
"""

import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from clawker_fw.engine import bounds

HEAD = struct.Struct(">BxxxL")
"""The stream, and the number of bytes that follow (ContainerAttach in the engine's API)."""

_OUTPUT, _ENGINE = 1, 3

STAMP = len("2026-01-01T00:00:00.000000000Z")
"""The length of the engine's time before each line."""


def stamp(moment: float) -> bytes:
    """Return a time in seconds since 1970 as an engine writes it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()


def log_lines(contents: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of a log as they arrive, several at a time, until the stream ends.

    A line of standard error is only the engine's time: it is there to be counted.
    """
    rest = b""
    for content in contents:
        rest += content
        lines, at = [], 0
        while at + HEAD.size <= len(rest):
            stream, size = HEAD.unpack_from(rest, at)
            begin, end = at + HEAD.size, at + HEAD.size + size
            if size > bounds.PIECE:
                raise bounds.too_long("a line of a log", bounds.PIECE)
            if end > len(rest):
                break
            if stream != _ENGINE:  # which says why it ends here
                lines.append(rest[begin : end if stream == _OUTPUT else min(end, begin + STAMP)])
            at = end
        rest = rest[at:]
        if lines:
            yield lines
