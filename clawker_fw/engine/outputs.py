"""Reads the output and exit code of a program in a container, and a container's log, from the engine's frames.

The Docker SDK reads a log frame by frame, more slowly than the engine sends a million lines. This code splits
whatever has arrived at once.
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
"""How long an engine may take to report the exit code after a program's output has ended."""
_ASK_EVERY = 0.02

HEAD = struct.Struct(">BxxxL")
"""The stream, and the number of bytes that follow (ContainerAttach in the engine's API)."""

_OUTPUT, _ERROR, _ENGINE = 1, 2, 3

STAMP = len("2026-01-01T00:00:00.000000000Z")
"""The length of the engine's time before each line."""


def outputs(client: Client, identity: str, silence: float) -> Generator[tuple[bytes, bytes], None, None]:
    """Start a program by the id of its exec, and yield pairs of standard output and error until it ends.

    The SDK's method reads from the socket and loses what Python's HTTP client has already buffered: on a busy
    machine, a quick program's whole output may arrive with the response's head.

    Raises:
        TimeoutError: after `silence` seconds without output. Engines can miss the end of a program whose
            container is restarted at that moment.
    """
    how = {"Tty": False, "Detach": False}
    with client.open_response("POST", f"/exec/{identity}/start", silence, json=how) as response:
        yield from frames(partial(streams.read, response))


def dialogue(
    client: APIClient, identity: str, sent: bytes, silence: float
) -> Generator[tuple[bytes, bytes], None, None]:
    """Start a program that reads `sent` before it prints anything, and yield its output as `outputs` does."""
    # Over TLS it is a socket, otherwise a reader of one.
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
    """Yield pairs of standard output and error from a stream, given a function that reads a number of bytes."""
    while len(head := read(HEAD.size)) == HEAD.size:
        which, size = HEAD.unpack(head)
        if size > bounds.PIECE:
            raise bounds.too_long("a program's output", bounds.PIECE)
        content = read(size)
        yield (b"", content) if which == _ERROR else (content, b"")


def exit_code(client: APIClient, identity: str) -> int | None:
    """Return the exit code of a program whose output has ended; None if the engine never reports it."""
    end = time.monotonic() + EXIT_SECONDS
    while True:
        code: int | None = client.exec_inspect(identity)["ExitCode"]
        if code is not None or time.monotonic() > end:
            return code
        time.sleep(_ASK_EVERY)


def stamp(moment: float) -> bytes:
    """Return seconds since 1970 as an engine writes a time."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()


def log_lines(contents: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of a log in batches as they arrive, until the stream ends.

    Lines of standard error are cut to the engine's time, because they only need to be counted.
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
            if stream != _ENGINE:  # its lines say why the log ends
                lines.append(rest[begin : end if stream == _OUTPUT else min(end, begin + STAMP)])
            at = end
        rest = rest[at:]
        if lines:
            yield lines
