"""The output of a program in a container, when the engine loses its end."""

import socket
import struct
from types import SimpleNamespace

import pytest

from clawker_fw.engine.outputs import outputs


def _stream(end: socket.socket) -> SimpleNamespace:
    """Return what `outputs` uses of the SDK's CancellableStream."""
    reader = end.makefile("rb")
    raw = SimpleNamespace(_fp=SimpleNamespace(fp=reader))
    return SimpleNamespace(_response=SimpleNamespace(raw=raw, close=reader.close), close=lambda: None)


def test_an_end_that_never_comes_is_not_waited_for() -> None:
    """What was written is read, and then the silence is an error."""
    ours, engines = socket.socketpair()
    with ours, engines:
        engines.sendall(struct.pack(">BxxxL", 1, 5) + b"hello")
        written = outputs(_stream(ours), 0.1)
        assert next(written) == (b"hello", b"")
        with pytest.raises(TimeoutError):
            next(written)


def test_an_end_is_an_end() -> None:
    """The control: without silence there is no error."""
    ours, engines = socket.socketpair()
    with ours, engines:
        engines.sendall(struct.pack(">BxxxL", 2, 5) + b"hello")
        engines.shutdown(socket.SHUT_WR)
        assert list(outputs(_stream(ours), 10)) == [(b"", b"hello")]
