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
            threading.Thread(target=_relay, args=(client, server, delay), daemon=True).start()
            threading.Thread(target=_relay, args=(server, client, lambda: 0.0), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, delay: Callable[[], float]) -> None:
    """Forward data. After a pause, it is a new request, which is delayed."""
    last = 0.0
    with suppress(OSError):
        while chunk := source.recv(_CHUNK):
            seconds = delay()
            if time.monotonic() - last > seconds / 2:
                time.sleep(seconds)
            target.sendall(chunk)
            last = time.monotonic()
        target.shutdown(socket.SHUT_WR)
