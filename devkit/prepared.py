"""A Python interpreter that has imported the program, and runs each command in a fork, which saves the imports.

A fork is otherwise like a process of `subprocess.Popen`: a child of the caller, with its own arguments,
environment, folder, umask and streams. Only what an interpreter reads at its start is shared, above all the seed
of hashes; a command with its own is started for real, and so are all commands of the benchmarks and the demo.
"""

import atexit
import ctypes
import gc
import importlib
import inspect
import io
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

import clawker_fw
from devkit.memory.engine import MemoryEngine
from devkit.stacks import blueprint, converged, environment
from devkit.waiting import until

_SET_CHILD_SUBREAPER = 36
"""The number of the operation (linux/prctl.h)."""

_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ")
"""The beginnings of the names of variables that an interpreter reads as it starts."""

_UMASK = "Umask:"
_ERRORS = 2


class Interpreter:
    """The process that forks. It ends with the process that has started it."""

    def __init__(self, variables: Mapping[str, str], within: Sequence[str]) -> None:
        """Prepare one with the environment of the commands to come. It is started when it is needed first.

        `within` is what runs a program where these commands run, such as in another network.
        """
        self._variables = dict(variables)
        self._within = list(within)
        self._control: socket.socket | None = None
        self._lock = threading.Lock()

    def serves(self, command: Sequence[str], variables: Mapping[str, str]) -> bool:
        """Whether a fork would be what the command line starts."""
        same = _read_at_start(variables) == _read_at_start(self._variables)
        start = [*self._within, sys.executable, "-m"]
        return same and sys.platform == "linux" and list(command[: len(start)]) == start

    def _connected(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair()
            with closing(theirs):
                command = [*self._within, sys.executable, "-m", "devkit.prepared", str(theirs.fileno())]
                self._process = subprocess.Popen(command, env=self._variables, pass_fds=[theirs.fileno()])
        return self._control

    def fork(self, command: Sequence[str], request: Mapping[str, object], streams: Sequence[int]) -> int:
        """Run a command in a fork that becomes a child of this process, and return its process id."""
        module, *arguments = command[len(self._within) + 2 :]
        request = {**request, "module": module, "arguments": arguments}
        with self._lock, tempfile.TemporaryFile() as sent, _adopting():
            sent.write(json.dumps(request).encode())
            sent.flush()
            control = self._connected()
            socket.send_fds(control, [b"."], [sent.fileno(), *streams])
            answer = control.recv(32)
        if not answer:
            raise RuntimeError("the prepared interpreter has ended")
        return int(answer)

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._process.wait()


@contextmanager
def _adopting() -> Iterator[None]:
    """Become the parent of descendants whose own parent ends meanwhile (PR_SET_CHILD_SUBREAPER of prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process can't become the parent of others")
    try:
        yield
    finally:
        libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in variables.items() if name.startswith(_READ_AT_START)}


class _Forked(subprocess.Popen[str]):
    """A process that a prepared interpreter has forked. It differs from others in how it is started."""

    def __init__(self, interpreter: Interpreter, command: Sequence[str], **given: Any) -> None:  # noqa: ANN401 - as of Popen
        self._interpreter = interpreter
        super().__init__(command, **given)

    def _execute_child(self, *positional: object) -> None:
        base = cast("Any", super())
        given = inspect.signature(base._execute_child).bind(*positional).arguments  # noqa: SLF001 - the one step to replace
        request = {
            "folder": os.fspath(given["cwd"] or Path.cwd()),
            "environment": dict(given["env"]),
            "umask": _umask(),
        }
        ends = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [number if end == -1 else end for number, end in enumerate(ends)]
        self.pid = self._interpreter.fork(given["args"], request, streams)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        base._close_pipe_fds(*(given[name] for name in pipes))  # noqa: SLF001 - as the replaced step does


def _umask() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(_UMASK)).removeprefix(_UMASK), 8)


_in_use: list[Interpreter] = []


@contextmanager
def in_use(within: Sequence[str] = ()) -> Iterator[None]:
    """Let `start` use a prepared interpreter for commands that run within something, such as another network."""
    with closing(Interpreter(environment(), within)) as interpreter:
        _in_use.append(interpreter)
        try:
            yield
        finally:
            _in_use.remove(interpreter)


def start(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], **streams: int
) -> "subprocess.Popen[str]":
    """Start a command line, usually with pipes for output: in a fork if one is in use and makes no difference."""
    pipe = subprocess.PIPE
    given: dict[str, Any] = {"stdout": pipe, "stderr": pipe, **streams, "cwd": folder, "env": variables}
    for interpreter in _in_use:
        if interpreter.serves(command, variables):
            return _Forked(interpreter, list(command), text=True, **given)
    return subprocess.Popen(list(command), text=True, **given)


def _prepare() -> None:
    """Import all of the program's modules and bring up a stack in memory, so that no fork does so again."""
    for module in pkgutil.walk_packages(clawker_fw.__path__, "clawker_fw."):
        if module.name != "clawker_fw.__main__":  # the program itself
            importlib.import_module(module.name)
    engine = MemoryEngine()
    converged(engine, blueprint(engine.facts(), "a.test"))  # hashes images, and compiles templates
    gc.collect()
    gc.freeze()


def _serve(control: socket.socket) -> str:
    """Fork for each request. Return in the fork, with the module that it is to run."""
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not descriptors:
            sys.exit()
        told, telling = os.pipe()
        # The fork's parent ends at once, so that the process that asked becomes its parent.
        if (parent := os.fork()) == 0:
            parent = os.getpid()
            if os.fork():
                os._exit(0)
            os.write(telling, str(os.getpid()).encode())
            _await_another(parent)
            control.detach()
            return _become(*descriptors)
        os.waitpid(parent, 0)
        control.send(os.read(told, 32))
        for each in (told, telling, *descriptors):
            os.close(each)


def _await_another(parent: int) -> None:
    until(lambda: os.getppid() != parent, every=0.0005)


def _become(requested: int, *streams: int) -> str:
    """Turn this process into one that has been started with a request, and return the module to run."""
    request = json.loads(os.pread(requested, os.fstat(requested).st_size, 0))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        vars(sys)[name] = vars(sys)[f"__{name}__"] = _opened(number, getattr(sys, name))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.umask(request["umask"])
    os.chdir(request["folder"])
    time.tzset()
    sys.argv[1:] = request["arguments"]
    sys.path[0] = request["folder"]
    return str(request["module"])


def _opened(number: int, before: TextIO) -> TextIO:
    """Open a standard stream as an interpreter does. The one before was connected to something else."""
    unbuffered = isinstance(before, io.TextIOWrapper) and before.write_through
    raw = io.FileIO(number, "w" if number else "r", closefd=False)
    by_line = not unbuffered and (number == _ERRORS or raw.isatty())
    file = raw if unbuffered else (io.BufferedWriter(raw) if number else io.BufferedReader(raw))
    return io.TextIOWrapper(file, before.encoding, before.errors, "\n", by_line, unbuffered)


def _run(module: str) -> None:
    """Run a module, and end. An interpreter takes its modules apart then: half the work of a short command."""
    codes: list[int] = []
    atexit.register(_end, codes)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, int | None):
            codes.append(ended.code or 0)
        raise


def _end(codes: Sequence[int]) -> None:
    """End with the exit code that is known. Else, and when the output can't be written, the interpreter ends."""
    with suppress(OSError, ValueError):
        for code in codes:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    _prepare()
    try:
        chosen = _serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
    _run(chosen)
