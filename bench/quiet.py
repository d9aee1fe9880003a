"""Waiting for an idle machine, because other load would distort measurements."""

import time
from pathlib import Path

_STATISTICS = Path("/proc/stat")
_WINDOW_SECONDS = 0.3
_IDLE_ENOUGH = 0.85


def quiet(seconds: float = 20) -> None:
    """Wait until the processors are idle, but at most `seconds`. Return at once where load is unknown."""
    end = time.monotonic() + seconds
    while _STATISTICS.exists() and time.monotonic() < end:
        before = ticks()
        time.sleep(_WINDOW_SECONDS)
        idle, whole = (after - once for after, once in zip(ticks(), before, strict=True))
        if idle > _IDLE_ENOUGH * whole:
            return


def ticks() -> tuple[int, int]:
    """Return the processors' idle time and total time since boot (proc_stat(5))."""
    ticks = [int(field) for field in _STATISTICS.read_text().partition("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
