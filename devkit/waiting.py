"""Waiting for something to become true, bounded, instead of sleeping for a time that is always wrong."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(look: Callable[[], Found | None], seconds: float = 30, every: float = 0.02) -> Found:
    """Return the first answer that is true.

    Raises:
        TimeoutError: when there is none within the time.
    """
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {seconds} s; the last answer was {found!r}")
        time.sleep(every)
