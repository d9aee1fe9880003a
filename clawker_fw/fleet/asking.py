"""Asks many hosts at the same time. One that is slow, dead or silent delays no other one."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from clawker_fw.background import in_background

_Host = TypeVar("_Host")
_Answer = TypeVar("_Answer")

_AT_ONCE = 16
"""How many hosts are asked at the same time. What is read from them is in memory meanwhile: 20 MB for each."""


def ask_all(
    hosts: Sequence[_Host], ask: Callable[[_Host], _Answer], late: Callable[[_Host], _Answer], seconds: float
) -> list[_Answer]:
    """Ask all hosts, and return their answers in the order of the hosts.

    The answer of a host that takes longer than `seconds` is `late`. Waiting for its turn does not count. No thread
    that still waits for a host keeps the program from ending, as an executor's threads would.
    """
    turns = threading.Semaphore(_AT_ONCE)

    def answer(host: _Host) -> _Answer:
        with turns:
            try:
                return in_background(ask, host).result(seconds)
            except TimeoutError:
                return late(host)

    return [answering.result() for answering in [in_background(answer, host) for host in hosts]]
