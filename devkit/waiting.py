"""Waiting for a condition with a time limit, instead of sleeping for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(look: Callable[[], Found | None], seconds: float = 30, every: float = 0.02) -> Found:
    """Call a function until its result is true, and return the result.

    Between two calls it waits `every` seconds, or as long as a call takes: asking leaves others half of the time.

    Raises:
        TimeoutError: when that takes too long.
    """
    end = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        found = look()
        if found:
            return found
        now = time.monotonic()
        if now > end:
            raise TimeoutError(f"not true within {seconds} s; the last answer was {found!r}")
        time.sleep(max(every, now - began))
