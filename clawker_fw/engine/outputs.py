"""What a program that the engine runs in a container writes, as the engine's API sends it.

The Docker SDK reads it from the socket, past what Python's HTTP client has read ahead. What comes together with
the head of the response would get lost: the whole answer of a program that is quick, while this machine is busy.
"""

import struct
from collections.abc import Generator
from typing import Any

_HEAD = struct.Struct(">BxxxL")
_ERROR = 2


def outputs(stream: Any) -> Generator[tuple[bytes, bytes], None, None]:  # noqa: ANN401 - the SDK's CancellableStream
    """Yield what comes on standard output and on standard error, until the program has ended.

    The format is that of ContainerAttach in the engine's API: which of the two, how many bytes, the bytes. At the
    end the connection is closed: response and socket hold each other, and would keep it open.
    """
    response = stream._response  # noqa: SLF001 - the SDK has no other way to it
    try:
        reader = response.raw._fp.fp  # noqa: SLF001 - nor has `requests`, once a connection is upgraded
        reader.raw._sock.settimeout(None)  # noqa: SLF001 - a program may be silent for long
        while len(head := reader.read(_HEAD.size)) == _HEAD.size:
            which, size = _HEAD.unpack(head)
            content = reader.read(size)
            yield (b"", content) if which == _ERROR else (content, b"")
    finally:
        stream.close()
        response.close()
