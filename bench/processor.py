"""The processor time of a program and of those that it has started (proc_pid_stat(5))."""

import os
from contextlib import suppress
from pathlib import Path


def processor_seconds(process: int) -> float:
    """Return how many seconds of a processor they have used so far."""
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
