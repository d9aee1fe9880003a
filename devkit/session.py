"""A peer's commands in one running container, without the slow start of a program in it by the engine."""

import json
import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from docker import APIClient

from clawker_fw.engine.outputs import frames


class Session:
    """The verb `commands` of the peer program, started once in a container. It runs one command at a time."""

    def __init__(self, client: APIClient, container: str) -> None:
        """Start it, or raise `docker.errors.APIError` when the container is not running."""
        identity = client.exec_create(container, ["/peer", "commands"], stdin=True)["Id"]
        # The SDK wraps the socket in a reader. It says nothing before it is asked, so the reader has read nothing.
        self._stream = cast("Any", client.exec_start(identity, socket=True))
        self._socket: socket.socket = self._stream._sock  # noqa: SLF001 - there is no public way to write
        self._socket.settimeout(None)
        self._frames = frames(self._read)

    def alive(self) -> bool:
        """Whether its program still runs, as long as nobody has asked it anything."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def begin(self, arguments: Sequence[str]) -> None:
        self._socket.sendall(json.dumps(arguments).encode() + b"\n")

    def ask_to_end(self) -> None:
        self._socket.sendall(b"\n")

    def answer(self) -> tuple[int, str]:
        """Return the command's exit code and output, or raise `ConnectionError` at the container's end."""
        said = b""
        while not said.endswith(b"\n"):
            output, _ = next(self._frames, (None, b""))
            if output is None:
                raise ConnectionError("the container has ended, and with it a command")
            said += output
        result = json.loads(said)
        return result["code"], result["output"]

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._stream.close()

    def _read(self, size: int) -> bytes:
        """Return so many octets, or fewer at the end."""
        content = b""
        while len(content) < size and (more := self._socket.recv(size - len(content))):
            content += more
        return content
