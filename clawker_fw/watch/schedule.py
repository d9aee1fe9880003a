"""When to compare next, and when to retry. Pure: the caller passes the time in."""

from collections.abc import Callable

SPACING = 1.0
"""Minimum seconds between the starts of two comparisons."""

Random = Callable[[], float]
"""Returns a random number from 0 to 1."""


class Schedule:
    """When the next comparison is due: at once after an event, else after the interval."""

    def __init__(self, interval: float, random: Random) -> None:
        self._interval = interval
        self._random = random
        self._began = float("-inf")
        self.due = float("-inf")

    def compared(self, now: float) -> None:
        """Record the start of a comparison. The next one is due after the interval, plus or minus 10 %."""
        self._began = now
        self.due = now + self._interval * (0.9 + 0.2 * self._random())

    def by(self, moment: float) -> None:
        """Make the next comparison due by `moment`, but not before the minimum spacing has passed."""
        self.due = min(self.due, max(moment, self._began + SPACING))


class Backoff:
    """Exponential backoff after failures: capped, with 50-100 % jitter."""

    def __init__(self, first: float, limit: float, random: Random) -> None:
        """Start without failures. `first` and `limit` are the shortest and longest wait, in seconds."""
        self._first = first
        self._limit = limit
        self._random = random
        self._until = float("-inf")
        self.failures = 0

    def failed(self, now: float) -> float:
        """Record a failure, and return how long to wait. A failure during the wait does not extend it."""
        if left := self.left(now):
            return left
        longest = min(self._limit, self._first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        wait = longest * (1 - self._random() / 2)
        self._until = now + wait
        return wait

    def succeeded(self) -> None:
        """Reset the backoff."""
        self.failures = 0
        self._until = float("-inf")

    def left(self, now: float) -> float:
        """Return the remaining seconds of the wait."""
        return max(0.0, self._until - now)
