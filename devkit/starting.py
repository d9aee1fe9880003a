"""Waiting for a program that was started until it answers: a file or a line in a log comes earlier than that."""

import contextlib
import http.client
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from devkit.waiting import until

_LINES = 20
_SECONDS = 60


class StartError(RuntimeError):
    """A program has ended, or does not answer. The message has the end of its log."""


class _UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def get(path: Path, target: str, method: str = "GET", *, silence: float = 5) -> bytes:
    """Return the body of an HTTP answer from a unix socket. `silence` is how many seconds nothing may arrive."""
    with contextlib.closing(_UnixConnection(str(path), timeout=silence)) as connection:
        connection.request(method, target, headers={"Host": "engine"})
        return connection.getresponse().read()


def exchange(path: Path, sent: bytes = b"") -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        if sent:  # some answer at once, and have gone
            connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def pings(path: Path) -> bool:
    """Whether an engine answers on a unix socket, which exists before that."""
    try:
        get(path, "/_ping")
    except (OSError, http.client.HTTPException):
        return False
    return True


def listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def wait_for(process: "subprocess.Popen[bytes]", answers: Callable[[], bool], log: Path | None = None) -> None:
    """Wait until a program answers, or raise `StartError` when it ends before that, or takes too long."""
    try:
        until(lambda: process.poll() is not None or answers(), _SECONDS)
    except TimeoutError as error:
        raise StartError(f"{process.args!r} does not answer within {_SECONDS} s{_end_of(log)}") from error
    if process.returncode is not None:
        raise StartError(f"{process.args!r} has ended with {process.returncode}{_end_of(log)}")


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, answers: Callable[[], bool]) -> Iterator[None]:
    """Run a program whose output goes to a log, until it answers (else `StartError`). A signal ends it."""
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        wait_for(process, answers, log)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def own_network(script: str = "") -> Iterator[int]:
    """Yield a process with a network of its own, in which a script has run. It ends with this one."""
    command = ["unshare", "--net", "sh", "-ec", f"{script}\necho\nexec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None  # noqa: S101 - for the type checker: PIPE was given
        holder.stdout.readline()
        yield holder.pid
        holder.communicate(timeout=_SECONDS)


def _end_of(log: Path | None) -> str:
    if log is None:
        return ""
    lines = log.read_text(errors="replace").splitlines()[-_LINES:]
    return "\n".join(("; the end of its log:", *lines))
