"""Many engines that are one: the answers of a real engine, recorded once, and given again at many addresses.

`Recorder` is a proxy that keeps each answer by its request. `serve` answers with them at as many sockets as are
wanted, in a process of its own: `python -m devkit.replay ANSWERS SOCKET...`. A request that was never recorded has
no answer: the connection is closed. Connections are kept open as an engine does, and what is large goes from a
file to the socket within the kernel, because the process shares the processors with what is measured.
"""

import os
import pickle
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from devkit.starting import wait_for

_END_OF_HEAD = b"\r\n\r\n"
_CLOSES = b"\r\nConnection: close"
_LENGTHS = (b"\r\nContent-Length:", b"\r\nTransfer-Encoding: chunked")
_LARGE = 1 << 17
_READ = 1 << 18
_BACKLOG = 512

Answers = Mapping[bytes, bytes]
"""Whole responses by what was asked: the first line and the body of the request."""


class Recorder:
    """A proxy before an engine, on a socket. It keeps what the engine answers."""

    def __init__(self, engine: Path, at: Path) -> None:
        """Listen at `at`, and ask the engine whose socket is `engine`."""
        self.answers: dict[bytes, bytes] = {}
        self._engine = engine
        self._listening = listening(at)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(connection,), daemon=True).start()

    def _pass_on(self, connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):
            if (asked := _asked(connection)) is None:
                return
            line, body = asked
            head = [line, b"Host: localhost", b"Connection: close"]
            if body:
                head += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
            with closing(socket.socket(socket.AF_UNIX)) as engine:
                engine.connect(str(self._engine))
                engine.sendall(b"\r\n".join(head) + _END_OF_HEAD + body)
                answer = b"".join(iter(lambda: engine.recv(_READ), b""))
            self.answers[_key(line, body)] = _keeping(answer)
            connection.sendall(answer)


def _keeping(answer: bytes) -> bytes:
    """Return a response as it is over a connection that stays open, if it says where it ends."""
    head, end, body = answer.partition(_END_OF_HEAD)
    return head.replace(_CLOSES, b"") + end + body if _says_where_it_ends(answer) else answer


def _says_where_it_ends(answer: bytes) -> bool:
    """Whether a response ends otherwise than with its connection (RFC 9112, section 6.3)."""
    head, _, _ = answer.partition(_END_OF_HEAD)
    return any(each in head for each in _LENGTHS)


def listening(at: Path) -> socket.socket:
    """Return a listening socket. Whoever does not accept what comes hangs, as seen from outside."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(at))
    made.listen(_BACKLOG)
    return made


@contextmanager
def recording(engine: Path, at: Path) -> Iterator[Recorder]:
    """Yield a proxy before an engine that keeps its answers."""
    with closing(Recorder(engine, at)) as recorder:
        yield recorder


@contextmanager
def served(answers: Answers, sockets: Sequence[Path], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Have a process answer at each of the sockets, and yield it."""
    kept, log = folder / "answers", folder / "served.log"
    kept.write_bytes(pickle.dumps(dict(answers)))
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "devkit.replay", str(kept), *map(str, sockets)], stdout=said, stderr=said
        )
    try:
        wait_for(process, lambda: b"listening" in log.read_bytes(), log)
        yield process
    finally:
        process.terminate()
        process.wait()


def serve(answers: Answers, sockets: Sequence[Path]) -> None:
    """Answer at each of the sockets, until this process is ended."""
    waiting = selectors.DefaultSelector()
    for each in sockets:
        waiting.register(listening(each), selectors.EVENT_READ)
    found = _Kept(answers)
    print("listening", flush=True)
    while True:
        for ready, _ in waiting.select():
            assert isinstance(ready.fileobj, socket.socket)  # noqa: S101 - nothing else is registered
            connection, _ = ready.fileobj.accept()
            threading.Thread(target=found.give, args=(connection,), daemon=True).start()


class _Kept:
    """Answers, the large ones in a file without a name."""

    def __init__(self, answers: Answers) -> None:
        """Write what is large to a file."""
        self._answers = answers
        self._file = os.memfd_create("answers")
        self._places: dict[bytes, int] = {}
        end = 0
        for key, answer in answers.items():
            if len(answer) > _LARGE:
                self._places[key] = end
                os.pwrite(self._file, answer, end)
                end += len(answer)

    def give(self, connection: socket.socket) -> None:
        """Answer what is asked over a connection, until it is closed."""
        with closing(connection), suppress(OSError):
            while asked := _asked(connection):
                key = _key(*asked)
                answer = self._answers.get(key, b"")
                if (place := self._places.get(key)) is None:
                    connection.sendall(answer)
                else:
                    _send_file(connection, self._file, place, len(answer))
                if not _says_where_it_ends(answer):
                    return


def _send_file(connection: socket.socket, file: int, place: int, length: int) -> None:
    while length:
        sent = os.sendfile(connection.fileno(), file, place, length)
        place, length = place + sent, length - sent


def _key(line: bytes, body: bytes) -> bytes:
    return line + b"\n" + body


def _asked(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Read a request, and return its first line and its body; None if there is none."""
    found = b""
    while _END_OF_HEAD not in found:
        if not (more := connection.recv(_READ)):
            return None
        found += more
    head, _, body = found.partition(_END_OF_HEAD)
    line, *fields = head.split(b"\r\n")
    named = dict(each.lower().split(b":", 1) for each in fields)
    while len(body) < int(named.get(b"content-length", 0)):
        body += connection.recv(_READ)
    return line, body


if __name__ == "__main__":
    serve(pickle.loads(Path(sys.argv[1]).read_bytes()), [Path(each) for each in sys.argv[2:]])  # noqa: S301 - our own file
