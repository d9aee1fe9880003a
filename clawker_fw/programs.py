"""Running programs of the user's to their end: in a limited time, with limited output, and nothing left behind."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_POLL_SECONDS = 0.01
_PIECE = 8 << 10


def run_to_end(
    command: Sequence[str], seconds: float, most: int, *, folder: Path, environment: Mapping[str, str]
) -> tuple[bytes, int]:
    """Run a program in a folder. It inherits no terminal, and its complaints are dropped.

    Return what it printed, and its status; negative is the signal that ended it. If it printed more than `most`
    octets, the output is more than that, and the program was killed. At its end, also by an error or an
    interruption here, what is left of its process group is killed.

    Raises:
        OSError: when it can't be started.
        TimeoutError: when it does not end in time. It is killed.
    """
    end = time.monotonic() + seconds
    with subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        bufsize=0,
    ) as process:
        try:
            output = _read(process, end, most)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # also what it has left behind
    return output, process.returncode


def _read(process: subprocess.Popen[bytes], end: float, most: int) -> bytes:
    """Return what a process writes until it ends, or has written more than it may."""
    written = b""
    while process.stdout:
        if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            raise TimeoutError
        piece = process.stdout.read(_PIECE)
        written += piece
        if len(written) > most:
            return written
        if not piece:
            break
    _await_end(process.pid, end)
    return written


def _await_end(process: int, end: float) -> None:
    """Wait until a process has ended, and leave its id taken, so that its group can be told from another's."""
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(_POLL_SECONDS)
