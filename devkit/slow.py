"""A slow engine: a relay in front of its socket that delays every request."""

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CHUNK = 1 << 16


@contextmanager
def slow(host: str, seconds: float | Callable[[], float]) -> Iterator[str]:
    """Yield the address of an engine whose calls are delayed. The delay may be changed meanwhile."""
    delay = seconds if callable(seconds) else lambda: seconds
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "docker.sock"
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=_accept, args=(listener, host.removeprefix("unix://"), delay), daemon=True).start()
        try:
            yield f"unix://{path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, engine: str, delay: Callable[[], float]) -> None:
    with suppress(OSError):  # closed: there are no more requests
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(engine)
            answered = threading.Event()
            answered.set()
            threading.Thread(target=_ask, args=(client, server, delay, answered), daemon=True).start()
            threading.Thread(target=_answer, args=(server, client, answered), daemon=True).start()


def _ask(
    client: socket.socket, engine: socket.socket, delay: Callable[[], float], answered: threading.Event
) -> None:
    """Forward requests. What follows an answer is a new one, which is delayed."""
    with suppress(OSError):
        while chunk := client.recv(_CHUNK):
            if answered.is_set():
                answered.clear()
                time.sleep(delay())
            engine.sendall(chunk)
        engine.shutdown(socket.SHUT_WR)


def _answer(engine: socket.socket, client: socket.socket, answered: threading.Event) -> None:
    """Forward answers."""
    with suppress(OSError):
        while chunk := engine.recv(_CHUNK):
            answered.set()
            client.sendall(chunk)
        client.shutdown(socket.SHUT_WR)
