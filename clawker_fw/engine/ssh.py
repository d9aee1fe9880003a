"""HTTP to an engine over `ssh HOST docker system dial-stdio`, as the docker CLI does for `ssh://` addresses.

The Docker SDK uses a second SSH implementation, which treats keys and known hosts differently and logs in for
every request. Here the user's `ssh` logs in once in the background, and all connections share the login
(ssh_config(5), ControlMaster). It ends soon after the last connection, however this process ends.
"""

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
from docker.transport.basehttpadapter import BaseHTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

_LOGIN_SECONDS = 30
_LINGER_SECONDS = 10
"""Seconds that the login outlasts its last connection."""

_CONNECTIONS = 10
_LAST_WORDS = 2000


def command(address: str, control: Path) -> list[str]:
    """Return the command whose standard input and output connect to the engine at an `ssh://` address."""
    parts = urlsplit(address)
    login = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    socket_ = ["--host", f"unix://{parts.path}"] if parts.path.strip("/") else []
    options = {
        "ConnectTimeout": _LOGIN_SECONDS,
        "ControlMaster": "auto",
        "ControlPath": control,
        "ControlPersist": _LINGER_SECONDS,
    }
    chosen = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
    remote = shlex.join(["docker", *socket_, "system", "dial-stdio"])
    return ["ssh", *login, *port, *chosen, "-T", "--", str(parts.hostname), remote]


class SshAdapter(BaseHTTPAdapter):
    """Sends requests to one engine over a pool of connections."""

    def __init__(self, address: str, timeout: float) -> None:
        """Prepare for the engine at `address`. The first request logs in."""
        super().__init__()
        self._folder = tempfile.mkdtemp(prefix="clawker-fw-")
        login = command(address, Path(self._folder, "c"))
        # The pool passes unknown arguments on to each of its connections.
        self._pool = HTTPConnectionPool(
            "localhost", timeout=timeout, maxsize=_CONNECTIONS, command=login, seconds=timeout
        )
        self._pool.ConnectionCls = _SshConnection
        self._end = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def get_connection(self, url: str | bytes, proxies: object = None) -> HTTPConnectionPool:
        """Return the only pool."""
        del url, proxies
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: object) -> str:
        """Return only the path, because there is no host."""
        del proxies
        return str(request.path_url)

    def close(self) -> None:
        """Close every idle connection."""
        super().close()
        self._pool.close()
        self._end()


class _SshConnection(HTTPConnection):
    """A connection to a process, started by `command`, with a timeout in `seconds`."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - urllib3's own
        command: Sequence[str],
        seconds: float,
        **options: Any,  # noqa: ANN401 - urllib3's own
    ) -> None:
        super().__init__(*arguments, **options)
        self._command = command
        self._seconds = seconds
        self._socket: _Socket | None = None

    def connect(self) -> None:
        self._socket = self.sock = _Socket.to(self._command, self._seconds)

    def getresponse(self) -> Any:  # noqa: ANN401 - urllib3's own
        """Return the response. If there is none, raise an error with the output of ssh."""
        try:
            return super().getresponse()
        except (OSError, HTTPException) as error:
            failure: Exception = error
        words = self._socket.last_words() if self._socket else ""
        raise ConnectionError(words) if words else failure


class _Socket(socket.socket):
    """One end of a socket pair whose other end is a process's input and output. Closing it ends the process."""

    _complaints: BinaryIO

    @classmethod
    def to(cls, command_: Sequence[str], timeout: float) -> "_Socket":
        """Start the process in its own session, so that Ctrl-C does not reach it."""
        ours, theirs = socket.socketpair()
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the socket
        with theirs:
            process = subprocess.Popen(
                list(command_),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=complaints,
                start_new_session=True,
            )
        made = cls(fileno=ours.detach())
        made.settimeout(timeout)
        made._complaints = complaints
        weakref.finalize(made, _end, process, complaints)
        return made

    def __del__(self) -> None:
        """Close the socket, because the SDK leaves event streams' sockets to the garbage collector."""
        self.close()

    def last_words(self) -> str:
        end = self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, end - _LAST_WORDS))
        return self._complaints.read(_LAST_WORDS).decode(errors="replace").strip()


def _end(process: "subprocess.Popen[bytes]", complaints: BinaryIO) -> None:
    process.terminate()
    process.wait()
    complaints.close()
