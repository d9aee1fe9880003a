"""An origin in this process that does with each connection what a test wants, and counts them."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from devkit.programs import OWN_LOOPBACK

Behaviour = Callable[[socket.socket], None]


class RawOrigin:
    """An origin, by default at the loopback address to which the names of tests lead. It ends with its context."""

    def __init__(self, port: int, does: Behaviour, address: str = OWN_LOOPBACK) -> None:
        """Listen. `does` may be changed: it counts for the connections that come afterwards."""
        self.does = does
        self.opened = self.ended = 0
        self._server = socket.create_server((address, port), backlog=1024)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def open(self) -> int:
        return self.opened - self.ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.opened += 1
                threading.Thread(target=self._serve, args=(connection, self.does), daemon=True).start()

    def _serve(self, connection: socket.socket, does: Behaviour) -> None:
        with connection, suppress(OSError):
            does(connection)
        self.ended += 1
