"""When to look, and when to try again. Pure: the time is told, never read."""

from collections.abc import Callable

SPACING = 1.0
"""Seconds between the beginnings of two looks at least, whatever happens on the engine."""

Random = Callable[[], float]
"""Returns another number from 0 to 1 each time."""


class Schedule:
    """When the next look is due: at once when something has happened, else when the interval is over."""

    def __init__(self, interval: float, random: Random) -> None:
        """Have a look due at once."""
        self._interval = interval
        self._random = random
        self._began = float("-inf")
        self.due = float("-inf")

    def look(self, now: float) -> None:
        """Take in that a look begins. The next one is due after the interval, give or take a tenth."""
        self._began = now
        self.due = now + self._interval * (0.9 + 0.2 * self._random())

    def by(self, moment: float) -> None:
        """Have the next look due at a moment, if it is not due before, and with the spacing to the last one."""
        self.due = min(self.due, max(moment, self._began + SPACING))


class Backoff:
    """How long to wait after failures: exponential backoff, capped, with random jitter."""

    def __init__(self, first: float, limit: float, random: Random) -> None:
        """Begin without a failure."""
        self._first = first
        self._limit = limit
        self._random = random
        self._until = float("-inf")
        self.failures = 0

    def failed(self, now: float) -> float:
        """Take in a failure, and return how long to wait. One that comes while waiting changes nothing."""
        if self.waits(now):
            return self._until - now
        longest = min(self._limit, self._first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        wait = longest * (1 - self._random() / 2)
        self._until = now + wait
        return wait

    def succeeded(self) -> None:
        """Forget the failures."""
        self.failures = 0
        self._until = float("-inf")

    def waits(self, now: float) -> bool:
        """Whether the time to wait is not over."""
        return now < self._until

    def left(self, now: float) -> float:
        """Return how long there is still to wait."""
        return max(0.0, self._until - now)
