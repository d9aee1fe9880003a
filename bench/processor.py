"""The processors of the machine, and the time of them that a program has used (proc_pid_stat(5))."""

import os
import resource
from contextlib import suppress
from pathlib import Path


def processors() -> tuple[set[int], set[int]]:
    """Return the processors for an agent and an origin, and the one for what is measured."""
    *others, last = sorted(os.sched_getaffinity(0))
    return set(others) or {last}, {last}


def processor_seconds(process: int) -> float:
    """Return how many seconds of a processor a program and those that it has started have used so far."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = place.read_text().rpartition(") ")[2].split()
            number = int(place.parent.name)
            parents[number], used[number] = int(fields[1]), int(fields[11]) + int(fields[12])
    wanted = {process}
    while more := {each for each, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    return sum(used.get(each, 0) for each in wanted) / os.sysconf("SC_CLK_TCK")


def agents_seconds() -> float:
    """Return how many seconds of a processor the programs have used that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
