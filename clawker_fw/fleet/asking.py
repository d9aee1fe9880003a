"""Asks many hosts at the same time: one that is slow, dead or silent costs its own answer, and no other one waits.

Each host has a thread and a deadline. The threads of many hosts are in several processes, because what an engine
sends has to be read and compared, and Python does that in one thread of a process at a time. The processes are
forks of this one, so they have all that it has imported and computed. Hosts are handed to whichever is idle.

A host is reached first, and read from when it is its turn. So those that are silent are waited for together, while
the others are read from.
"""

import os
import pickle
import selectors
import shutil
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from clawker_fw.background import in_background

_Host = TypeVar("_Host")
_Answer = TypeVar("_Answer")

_READ = 4
"""From how many hosts one process reads at the same time: with more, threads wait for each other (measured)."""

_REACHED = 64
"""How many hosts one process has reached, or waits for. One that waits costs nothing but a thread."""

_LOGINS = 4
"""How many hosts over ssh one process has reached at the same time: each login is a process."""

_FOR_EACH_PROCESSOR, _MOST_PROCESSES = 2, 8
"""How many processes there are. With twice as many, all hosts together took a sixth more of the processors; and a
host over ssh takes up to ten processes of `ssh`."""

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

    reach: Callable[[_Host], Callable[[], _Answer]]
    """Reaches a host, and returns what reads its answer."""
    late: Callable[[_Host], _Answer]
    lost: Callable[[_Host], _Answer]
    seconds: float
    """How long a host may take in all. Waiting for its turn does not count."""
    logs_in: Callable[[_Host], bool] = lambda _: False
    """Whether reaching a host takes a process."""


class _Turns:
    """How many hosts one process has to do with at the same time."""

    def __init__(self) -> None:
        self.reading, self.logins = threading.Semaphore(_READ), threading.Semaphore(_LOGINS)

    def answer(self, question: Question[_Host, _Answer], host: _Host) -> _Answer:
        """Ask a host, and wait no longer than until its deadline. A thread that is late is left behind."""
        with self.logins if question.logs_in(host) else nullcontext():
            began = time.monotonic()
            try:
                read = in_background(question.reach, host).result(question.seconds)
                left = question.seconds - (time.monotonic() - began)
                with self.reading:
                    return in_background(read).result(left)
            except TimeoutError:
                return question.late(host)


def ask_all(hosts: Sequence[_Host], question: Question[_Host, _Answer]) -> list[_Answer]:
    """Ask all hosts, and return their answers in the order of the hosts: one for each."""
    found = _in_processes(hosts, question) if len(hosts) > _FEW and hasattr(os, "fork") else _here(hosts, question)
    return [found[number] if number in found else question.lost(host) for number, host in enumerate(hosts)]


def _here(hosts: Sequence[_Host], question: Question[_Host, _Answer]) -> dict[int, _Answer]:
    """Ask a few hosts, or all where there are no forks, with threads of this process alone."""
    found: dict[int, _Answer] = {}
    left = iter(list(enumerate(hosts)))
    lock, turns = threading.Lock(), _Turns()

    def work() -> None:
        while True:
            with lock:
                number, host = next(left, (-1, None))
            if host is None:
                return
            found[number] = turns.answer(question, host)

    for each in [in_background(work) for _ in range(min(_REACHED, len(hosts)))]:
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
        count = min(_processes(), -(-len(hosts) // _READ))
        share = -(-len(hosts) // count)
        for _ in range(count):
            reads, answers = os.pipe()
            if (process := os.fork()) == 0:
                _become_worker([tasks, reads, *results], (takes, answers), hosts, question, share)
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
    own: tuple[int, int],
    hosts: Sequence[_Host],
    question: Question[_Host, _Answer],
    share: int,
) -> NoReturn:
    """Ask the hosts whose numbers arrive by the first of its `own` pipes, until none comes any more, and end.

    No process takes more than its `share` ahead: what has been reached can't be handed to one that is idle.
    """
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for each in others:
            os.close(each)
        takes, answers = own
        writing, turns = threading.Lock(), _Turns()

        def work() -> None:
            while number := os.read(takes, _NUMBER.size):
                (place,) = _NUMBER.unpack(number)
                content = pickle.dumps(turns.answer(question, hosts[place]))
                with writing:
                    _write(answers, _LENGTH.pack(place, len(content)) + content)

        working: list[Future[None]] = [in_background(work) for _ in range(min(_REACHED, share))]
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
