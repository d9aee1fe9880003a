"""A log is the same, in whatever pieces it arrives."""

import socket
import threading
from http.client import HTTPResponse
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.engine.log_stream import log_lines

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.0 200 OK\r\n\r\n"


def frame(line: bytes, stream: int = 1) -> bytes:
    """Return a line as an engine sends it."""
    return bytes([stream, 0, 0, 0]) + len(line).to_bytes(4) + line


def chunk(content: bytes) -> bytes:
    """Return a chunk of a body."""
    return b"%x\r\n%s\r\n" % (len(content), content)


def read(*parts: bytes, errors: bool = False) -> list[bytes]:
    """Return the lines in a response that arrives in parts."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs:
            for part in parts:
                theirs.sendall(part)

    sending = threading.Thread(target=send)
    sending.start()
    with ours:
        response = HTTPResponse(ours)
        response.begin()
        try:
            found = log_lines(SimpleNamespace(raw=SimpleNamespace(_fp=response)), 5, errors=errors)
            return [line for some in found for line in some]
        finally:
            response.close()
            sending.join()


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([1, 2])), max_size=8),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_in_any_pieces(lines: list[tuple[bytes, int]], sizes: list[int]) -> None:
    """Chunks and frames end anywhere; lines of standard error are empty unless they are wanted."""
    body = b"".join(frame(line, stream) for line, stream in lines)
    expected = [line if stream == 1 else b"" for line, stream in lines]
    pieces, at = [], 0
    for size in [*sizes, len(body)]:
        pieces.append(body[at : at + size])
        at += size
    chunks = [chunk(piece) for piece in pieces if piece]
    assert read(CHUNKED, *chunks, chunk(b"")) == expected
    assert read(PLAIN, *pieces) == expected
    assert read(PLAIN, *pieces, errors=True) == [line for line, _ in lines]


@pytest.mark.parametrize("rest", [b"", b"5\r\nab", b"no size\r\n"])
def test_that_breaks_off(rest: bytes) -> None:
    """A log that ends before its end is an error."""
    with pytest.raises(ConnectionError):
        read(CHUNKED, chunk(frame(b"x\n")), rest)
