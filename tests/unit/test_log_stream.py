"""Logs and program output do not depend on how they are split in transit."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from clawker_fw.engine import streams
from clawker_fw.engine.outputs import STAMP, frames, log_lines

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.0 200 OK\r\n\r\n"
SILENCE = 5.0


def frame(line: bytes, stream: int = 1) -> bytes:
    """Return a line as an engine sends it."""
    return struct.pack(">BxxxL", stream, len(line)) + line


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


@contextmanager
def answered(*parts: bytes, silence: float = SILENCE, ends: bool = True) -> Iterator[requests.Response]:
    """Yield the response of a server that sends it in parts, then closes or hangs."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while b"\r\n\r\n" not in connection.recv(65536):
                    pass
                for part in parts:
                    connection.sendall(part)
                if not ends:
                    over.wait(30)

        serving = threading.Thread(target=serve)
        serving.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        try:
            with requests.get(url, stream=True, timeout=silence) as response:
                yield response
        finally:
            over.set()
            serving.join()


def read(*parts: bytes) -> list[bytes]:
    """Return the lines of a log that arrives in parts."""
    with answered(*parts) as response:
        return [line for some in log_lines(streams.contents(response)) for line in some]


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([1, 2])), max_size=8),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_in_any_pieces(lines: list[tuple[bytes, int]], sizes: list[int]) -> None:
    """Chunks and frames may end anywhere; standard error lines give only their time."""
    body = b"".join(frame(line, stream) for line, stream in lines)
    expected = [line if stream == 1 else line[:STAMP] for line, stream in lines]
    pieces, at = [], 0
    for size in [*sizes, len(body)]:
        pieces.append(body[at : at + size])
        at += size
    chunks = [chunk(piece) for piece in pieces if piece]
    assert read(CHUNKED, *chunks, chunk(b"")) == expected
    assert read(PLAIN, *pieces) == expected
    with answered(PLAIN, *pieces) as response:
        written = list(frames(partial(streams.read, response)))
    assert written == [(line, b"") if stream == 1 else (b"", line) for line, stream in lines]


def test_what_the_engine_itself_says_is_no_line() -> None:
    """Errors that newer engines insert into a log are not lines."""
    assert read(CHUNKED, chunk(frame(b"a\n") + frame(b"Error grabbing logs", 3)), chunk(b"")) == [b"a\n"]


@pytest.mark.parametrize("rest", [b"", b"5\r\nab", b"no size\r\n"])
def test_that_breaks_off(rest: bytes) -> None:
    """A truncated log is an error."""
    with pytest.raises(ConnectionError):
        read(CHUNKED, chunk(frame(b"x\n")), rest)


def test_what_hangs() -> None:
    """A hanging log is read as far as written; then the silence is an error."""
    with answered(CHUNKED, chunk(frame(b"x\n")), silence=0.2, ends=False) as response:
        lines = log_lines(streams.contents(response))
        assert next(lines) == [b"x\n"]
        with pytest.raises(TimeoutError):
            next(lines)
    with answered(PLAIN, frame(b"hello"), silence=0.2, ends=False) as response:
        written = frames(partial(streams.read, response))
        assert next(written) == (b"hello", b"")
        with pytest.raises(TimeoutError):
            next(written)
