"""What a program in a container writes, as an engine sends it in frames: output, exit code, and a container's log.

The Docker SDK reads a log frame by frame, which takes longer than the engine needs to send a million lines. Here
whatever has arrived is taken apart at once.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import cast

from docker import APIClient

from clawker_fw.engine import bounds, streams
from clawker_fw.engine.transport import Client

EXIT_SECONDS = 10.0
"""How long an engine may take to know the exit code of a program whose output has ended."""
_ASK_EVERY = 0.02


HEAD = struct.Struct(">BxxxL")
"""The stream, and the number of bytes that follow (ContainerAttach in the engine's API)."""

_OUTPUT, _ERROR, _ENGINE = 1, 2, 3

STAMP = len("2026-01-01T00:00:00.000000000Z")
"""The length of the engine's time before each line."""


def outputs(client: Client, identity: str, silence: float | None) -> Generator[tuple[bytes, bytes], None, None]:
    """Start a program by the id of its exec, and yield pairs of standard output and error until it ends.

    The SDK's own method reads from the socket, and loses what Python's HTTP client has already buffered. On a busy
    machine, the whole output of a quick program may arrive together with the response's head.

    `silence` is for how many seconds there may be no output, or None without a limit.

    Raises:
        TimeoutError: when there is no output for longer. Engines can lose the end of a program whose container is
            restarted at that moment.
    """
    how = {"Tty": False, "Detach": False}
    with client.open_response("POST", f"/exec/{identity}/start", silence, json=how) as response:
        yield from frames(partial(streams.read, response))


def dialogue(
    client: APIClient, identity: str, sent: bytes, silence: float | None
) -> Generator[tuple[bytes, bytes], None, None]:
    """Start a program that says nothing before it has read what is sent, and yield its output as `outputs` does.

    Raises:
        TimeoutError: when there is no output for longer than `silence`.
    """
    # Over TLS it is a socket, and otherwise what reads from one.
    stream = cast("socket.SocketIO", client.exec_start(identity, socket=True))
    descriptor = stream if isinstance(stream, socket.socket) else socket.socket(fileno=os.dup(stream.fileno()))
    with descriptor as connection:
        connection.settimeout(silence)
        connection.sendall(sent)
        yield from frames(partial(_received, connection))


def _received(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size and (more := connection.recv(size - len(content))):
        content += more
    return content


def frames(read: Callable[[int], bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of standard output and error from a stream that `read` reads, so many bytes at a time.

    The format is that of ContainerAttach in the engine's API: the stream, the number of bytes, the bytes.
    """
    while len(head := read(HEAD.size)) == HEAD.size:
        which, size = HEAD.unpack(head)
        if size > bounds.PIECE:
            raise bounds.too_long("a program's output", bounds.PIECE)
        content = read(size)
        yield (b"", content) if which == _ERROR else (content, b"")


def exit_code(client: APIClient, identity: str) -> int | None:
    """Return the exit code of a program whose output has ended, or None if the engine does not get to know it.

    The engine ends the output first, and learns a moment later with what the program has ended.
    """
    end = time.monotonic() + EXIT_SECONDS
    while True:
        code: int | None = client.exec_inspect(identity)["ExitCode"]
        if code is not None or time.monotonic() > end:
            return code
        time.sleep(_ASK_EVERY)


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
