"""The log of a container, as an engine streams it: chunks of HTTP, in them frames, in each frame a line.

The Docker SDK reads a log frame by frame, and `http.client` chunk by chunk. A log of a million lines takes both
longer than the engine needs for it, so here whatever has arrived is taken apart at once.
"""

import struct
from collections.abc import Callable, Container, Iterator
from typing import Any

_HEAD = struct.Struct(">BxxxL")
"""The stream, and the number of bytes that follow (ContainerAttach in the engine's API)."""

_OUTPUT, _ERRORS = 1, 2
_END_OF_LINE = b"\r\n"
_BYTES_AT_ONCE = 1 << 18


def log_lines(
    response: Any,  # noqa: ANN401 - requests' own
    silence: float | None,
    *,
    errors: bool = False,
) -> Iterator[list[bytes]]:
    """Yield the lines of a log as they arrive, several at a time, until the stream ends.

    `response` is a streaming one of the SDK. `silence` is for how many seconds nothing need arrive, or None
    without a limit. Unless `errors` are wanted, a line of standard error is empty: it is only there to be counted.

    Raises:
        OSError: when the connection ends within the log, or is silent for longer.
    """
    arrived = response.raw._fp  # noqa: SLF001 - the SDK offers no other access
    arrived.fp.raw._sock.settimeout(silence)  # noqa: SLF001 - `requests` sets it for a whole call

    def read() -> bytes:
        content: bytes = arrived.fp.read1(_BYTES_AT_ONCE)
        return content

    wanted = (_OUTPUT, _ERRORS) if errors else (_OUTPUT,)
    yield from _lines(_chunks(read) if arrived.chunked else iter(read, b""), wanted)


def _chunks(read: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield what is in the chunks of a body (RFC 9112, section 7.1), joined as they arrive."""
    rest = b""
    while content := read():
        rest += content
        parts: list[bytes] = []
        at = 0
        while (head := rest.find(_END_OF_LINE, at)) >= 0:
            size = _size(rest[at:head])
            begin = head + 2
            end = begin + size
            if end + 2 > len(rest):
                break
            if size == 0:
                yield b"".join(parts)
                return
            parts.append(rest[begin:end])
            at = end + 2
        rest = rest[at:]
        yield b"".join(parts)
    raise ConnectionError("the connection ended within the log")


def _size(head: bytes) -> int:
    """Return the size in the head of a chunk."""
    try:
        return int(head, 16)
    except ValueError as error:
        raise ConnectionError(f"the engine sent {head!r} where a chunk begins") from error


def _lines(contents: Iterator[bytes], wanted: Container[int]) -> Iterator[list[bytes]]:
    rest = b""
    for content in contents:
        rest += content
        lines, at = [], 0
        while at + _HEAD.size <= len(rest):
            stream, size = _HEAD.unpack_from(rest, at)
            begin, end = at + _HEAD.size, at + _HEAD.size + size
            if end > len(rest):
                break
            lines.append(rest[begin:end] if stream in wanted else b"")
            at = end
        rest = rest[at:]
        if lines:
            yield lines
