"""Polling the registries of bundles, beside the comparisons: with jitter, more slowly while they fail.

Whatever comes of it is kept by `settings.bundles`, where the next comparison finds it. So a registry that hangs
holds up no healing.
"""

import threading
from collections.abc import Callable, Sequence

from clawker_fw.errors import RegistryError
from clawker_fw.settings.bundles.taking import Asked
from clawker_fw.watch.schedule import Backoff, Random

FIRST_SECONDS = 30.0
"""Within how many seconds of its start a watcher asks: many start together, after an upgrade or an outage."""

_JITTER = 0.2
_LONGEST_RETRY = 86400.0
_REMIND_SECONDS = 3600.0
"""How often a problem that stays the same is reported."""


class BundlePoll:
    """When the registries are asked, and what came of it. The caller passes the time in, in seconds."""

    def __init__(
        self,
        interval: float,
        ask: Callable[[], Sequence[Asked]],
        report: Callable[[Asked], None],
        random: Random,
        now: float,
    ) -> None:
        """Make the first poll due soon. `ask` asks for all bundles; `report` is told what is news to people."""
        self._interval = interval
        self._ask = ask
        self._report = report
        self._random = random
        self._failing = Backoff(2 * interval, 8 * interval, random)
        self._told: dict[str, tuple[str, float]] = {}
        self.due = now + min(FIRST_SECONDS, interval) * random()

    def poll(self, now: float) -> bool:
        """Ask, and decide when to ask again. Return whether another bundle is in force."""
        asked = self._ask()
        for each in asked:
            self._tell(each, now)
        failed = [each.error for each in asked if isinstance(each.error, RegistryError)]
        if failed:
            wished = max(each.retry_after or 0.0 for each in failed)
            self.due = now + max(self._failing.failed(now), min(wished, _LONGEST_RETRY))
        else:
            self._failing.succeeded()
            self.due = now + self._interval * (1 - _JITTER + 2 * _JITTER * self._random())
        return any(each.taken for each in asked)

    def _tell(self, asked: Asked, now: float) -> None:
        """Report another bundle, another problem, the end of one, and each hour one that stays."""
        code = asked.error.code if asked.error else ""
        before, at = self._told.get(asked.reference, ("", now))
        if asked.taken or code != before or (code and now - at >= _REMIND_SECONDS):
            self._told[asked.reference] = (code, now)
            self._report(asked)


def keep_polling(
    poll: BundlePoll, clock: Callable[[], float], taken: Callable[[], None], ended: threading.Event
) -> None:
    """Poll until ended; call `taken` when another bundle is in force."""
    while not ended.wait(max(0.0, poll.due - clock())):
        if poll.poll(clock()):
            taken()
