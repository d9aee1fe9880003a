"""Asks many hosts at the same time: one that is slow, dead or silent costs its own answer, and no other one waits.

Each host has a thread and a deadline. The threads of many hosts are in several processes, because what an engine
sends has to be read and compared, and Python does that in one thread of a process at a time. The processes are
forks of this one, so they have all that it has imported and computed. Hosts are handed to whichever is idle.
"""

import os
import pickle
import selectors
import shutil
import signal
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from clawker_fw.background import in_background

_Host = TypeVar("_Host")
_Answer = TypeVar("_Answer")

_THREADS = 4
"""How many hosts one process asks at the same time: with more, its threads wait for each other (measured)."""

_FOR_EACH_PROCESSOR, _MOST_PROCESSES = 2, 8
"""How many processes there are. With twice as many, all hosts together took a sixth more of the processors; and a
host over ssh takes up to ten processes of `ssh`."""

AT_ONCE = _THREADS * _MOST_PROCESSES
"""The most hosts that are asked at the same time: on a machine with two processors, it is half of that."""

_FEW = 8
"""Up to so many hosts are asked by this process itself."""

_NUMBER = struct.Struct("!I")
_LENGTH = struct.Struct("!II")
_NO_MORE = b""


@dataclass(frozen=True)
class Question(Generic[_Host, _Answer]):
    """What is asked of each host, and the answers for one that is late, and for one whose process has ended.

    Answers pass from one process to another, so they are values.
    """

    ask: Callable[[_Host], _Answer]
    late: Callable[[_Host], _Answer]
    lost: Callable[[_Host], _Answer]
    seconds: float
    """How long a host may take in all."""

    def of(self, host: _Host) -> _Answer:
        """Ask a host, and wait no longer than until its deadline. A thread that is late is left behind."""
        try:
            return in_background(self.ask, host).result(self.seconds)
        except TimeoutError:
            return self.late(host)


def ask_all(hosts: Sequence[_Host], question: Question[_Host, _Answer]) -> list[_Answer]:
    """Ask all hosts, and return their answers in the order of the hosts: one for each."""
    found = _in_processes(hosts, question) if len(hosts) > _FEW and hasattr(os, "fork") else _here(hosts, question)
    return [found[number] if number in found else question.lost(host) for number, host in enumerate(hosts)]


def _here(hosts: Sequence[_Host], question: Question[_Host, _Answer]) -> dict[int, _Answer]:
    """Ask a few hosts, or all where there are no forks, with threads of this process alone."""
    found: dict[int, _Answer] = {}
    left = iter(list(enumerate(hosts)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number, host = next(left, (-1, None))
            if host is None:
                return
            found[number] = question.of(host)

    for each in [in_background(work) for _ in range(min(AT_ONCE, len(hosts)))]:
        each.result()
    return found


# --- in several processes -------------------------------------------------------------------------------------


def _in_processes(hosts: Sequence[_Host], question: Question[_Host, _Answer]) -> dict[int, _Answer]:
    """Ask with several processes. They end with this call, however it ends."""
    found: dict[int, _Answer] = {}
    with _shared_folder(), _workers(hosts, question) as (tasks, results), selectors.DefaultSelector() as waiting:
        received = dict.fromkeys(results, b"")
        for each in results:
            waiting.register(each, selectors.EVENT_READ)
        in_background(_hand_out, tasks, len(hosts))
        while waiting.get_map():
            for key, _ in waiting.select():
                if (more := os.read(key.fd, 1 << 16)) == _NO_MORE:
                    waiting.unregister(key.fd)
                    continue
                received[key.fd] += more
                received[key.fd] = _taken(received[key.fd], found)
    return found


def _hand_out(tasks: int, count: int) -> None:
    """Write the number of each host into the pipe from which all processes read, one at a time."""
    with os.fdopen(tasks, "wb", buffering=0) as pipe, suppress(BrokenPipeError):
        for number in range(count):
            pipe.write(_NUMBER.pack(number))


def _taken(received: bytes, found: dict[int, _Answer]) -> bytes:
    """Take whole answers, and return what is left of the octets."""
    while len(received) >= _LENGTH.size:
        number, length = _LENGTH.unpack_from(received)
        end = _LENGTH.size + length
        if len(received) < end:
            break
        found[number] = pickle.loads(received[_LENGTH.size : end])  # noqa: S301 - from a fork of this process
        received = received[end:]
    return received


@contextmanager
def _workers(hosts: Sequence[_Host], question: Question[_Host, _Answer]) -> Iterator[tuple[int, list[int]]]:
    """Start processes, and yield where their tasks are written to, and where each writes its answers.

    At the end none is left.
    """
    takes, tasks = os.pipe()
    results: list[int] = []
    processes: list[int] = []
    try:
        for _ in range(min(_processes(), -(-len(hosts) // _THREADS))):
            reads, answers = os.pipe()
            if (process := os.fork()) == 0:
                _become_worker([tasks, reads, *results], takes, answers, hosts, question)
            processes.append(process)
            os.close(answers)
            results.append(reads)
        os.close(takes)
        yield tasks, results
    finally:
        for each in results:
            os.close(each)
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _processes() -> int:
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_PROCESSES, _FOR_EACH_PROCESSOR * able)


def _become_worker(
    others: Sequence[int],
    takes: int,
    answers: int,
    hosts: Sequence[_Host],
    question: Question[_Host, _Answer],
) -> NoReturn:
    """Ask the hosts whose numbers arrive, until none comes any more, and end."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for each in others:
            os.close(each)
        writing = threading.Lock()

        def work() -> None:
            while number := os.read(takes, _NUMBER.size):
                (place,) = _NUMBER.unpack(number)
                content = pickle.dumps(question.of(hosts[place]))
                with writing:
                    _write(answers, _LENGTH.pack(place, len(content)) + content)

        working: list[Future[None]] = [in_background(work) for _ in range(_THREADS)]
        for future in working:
            future.result()
    finally:
        os._exit(0)


def _write(pipe: int, content: bytes) -> None:
    while content:
        content = content[os.write(pipe, content) :]


@contextmanager
def _shared_folder() -> Iterator[None]:
    """Have the temporary files of all processes in one folder: they may be ended before they clean up."""
    before, folder = tempfile.tempdir, tempfile.mkdtemp(prefix="cfw-")
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
