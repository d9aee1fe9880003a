"""Waiting for a condition with a time limit, instead of sleeping for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(look: Callable[[], Found | None], seconds: float = 30, every: float = 0.02) -> Found:
    """Call a function until its result is true, and return the result.

    The pause is `every` seconds or the duration of a call, and grows up to a second. Raises TimeoutError.
    """
    start = time.monotonic()
    while True:
        began = time.monotonic()
        found = look()
        if found:
            return found
        took, passed = time.monotonic() - began, time.monotonic() - start
        if passed > seconds:
            raise TimeoutError(f"not true within {seconds} s; the last answer was {found!r}")
        time.sleep(max(every, took, min(1.0, took * passed)))
