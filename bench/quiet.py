"""Waiting for a quiet moment: a time taken while the machine does something else says little about us."""

import time
from pathlib import Path

_STATISTICS = Path("/proc/stat")
_WINDOW_SECONDS = 0.3
_IDLE_ENOUGH = 0.85


def quiet(seconds: float = 20) -> None:
    """Return when the processors are idle, after so many seconds at the latest; at once where nobody can tell."""
    end = time.monotonic() + seconds
    while _STATISTICS.exists() and time.monotonic() < end:
        before = _ticks()
        time.sleep(_WINDOW_SECONDS)
        idle, whole = (after - once for after, once in zip(_ticks(), before, strict=True))
        if idle > _IDLE_ENOUGH * whole:
            return


def _ticks() -> tuple[int, int]:
    """Return the time that the processors were idle, and all of it, since boot (proc_stat(5))."""
    ticks = [int(field) for field in _STATISTICS.read_text().partition("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
