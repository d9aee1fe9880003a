"""The output of a program that the engine runs in a container.

The Docker SDK reads it directly from the socket, and so loses what Python's HTTP client has already buffered. On a
busy machine, the whole output of a quick program may arrive together with the response's head and be lost.
"""

import struct
from collections.abc import Generator
from typing import Any

_HEAD = struct.Struct(">BxxxL")
_ERROR = 2


def outputs(
    stream: Any,  # noqa: ANN401 - the SDK's CancellableStream
    silence: float | None,
) -> Generator[tuple[bytes, bytes], None, None]:
    """Yield pairs of standard output and standard error until the program ends.

    `silence` is for how many seconds there may be no output, or None without a limit.

    The format is that of ContainerAttach in the engine's API: the stream, the number of bytes, the bytes. The
    connection is closed explicitly, because response and socket reference each other and would keep it open.

    Raises:
        TimeoutError: when there is no output for longer. Engines can lose the end of a program whose container is
            restarted at that moment.
    """
    response = stream._response  # noqa: SLF001 - the SDK offers no other access
    try:
        reader = response.raw._fp.fp  # noqa: SLF001 - nor does `requests` for an upgraded connection
        reader.raw._sock.settimeout(silence)  # noqa: SLF001 - `requests` sets it for a whole call
        while len(head := reader.read(_HEAD.size)) == _HEAD.size:
            which, size = _HEAD.unpack(head)
            content = reader.read(size)
            yield (b"", content) if which == _ERROR else (content, b"")
    finally:
        stream.close()
        response.close()
