"""The health page: whether the last comparison found the stack current, and is recent enough to count."""

import json
import threading
from collections.abc import Callable

from clawker_fw.model import Verdict
from clawker_fw.watch.decision import Decision


class WatcherHealth:
    """The content of the health page. `fresh_seconds` is the maximum age of a comparison."""

    def __init__(self, fresh_seconds: float, clock: Callable[[], float]) -> None:
        """Start unhealthy, because nothing has been compared yet."""
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._guard = threading.Lock()
        self._last: tuple[float, Verdict | None, str | None] | None = None

    def report(self, decision: Decision) -> None:
        """Record a decision."""
        with self._guard:
            self._last = (self._clock(), decision.verdict, decision.error.code if decision.error else None)

    def answer(self) -> tuple[bool, bytes]:
        """Return whether the stack is known to be current, and the page as JSON."""
        with self._guard:
            last = self._last
        moment, verdict, code = last or (float("-inf"), None, None)
        age = self._clock() - moment
        healthy = verdict is Verdict.CURRENT and age <= self._fresh_seconds
        document = {
            "healthy": healthy,
            "verdict": verdict.value if verdict else None,
            "code": code,
            "age_seconds": round(age, 1) if last else None,
        }
        return healthy, json.dumps(document).encode() + b"\n"
