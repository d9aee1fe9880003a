"""A process that an engine's runtime has put into a container, and that never gets to execute its program.

On a machine that does not keep up, every `docker exec` looks like this for a while.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PROGRAM = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
with open(sys.argv[1]) as namespace:
    if libc.setns(namespace.fileno(), 0):
        raise OSError(ctypes.get_errno(), "setns")
if not os.fork():  # only a child gets into the namespace
    libc.prctl(1, signal.SIGKILL)  # it ends with its parent (PR_SET_PDEATHSIG)
    libc.prctl(4, 0)  # as runc does, so that nobody inside may look at it (PR_SET_DUMPABLE)
    print(flush=True)
    signal.pause()
sys.stdin.read()
"""


@contextlib.contextmanager
def unfinished_exec(process: Path) -> Iterator[None]:
    """Hold a process in the process namespace of another one, whose folder in `/proc` is given."""
    command = [sys.executable, "-c", _PROGRAM, str(process / "ns/pid")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        try:
            if held.stdout is None or not held.stdout.readline():
                raise RuntimeError("no process could be put into the namespace")
            yield
        finally:
            held.communicate()
