"""Counting refusals for a watcher's metrics: each time, only what the logs have got since is read."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from clawker_fw.agents.names import AgentNames
from clawker_fw.denials.reading import records, sources
from clawker_fw.denials.tally import Tally, together
from clawker_fw.engine.outputs import stamp
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import FirewallError, NotFoundError
from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.reasons import Reason

COUNT_EVERY = 15.0
"""Seconds. A flood writes at most a few thousand lines meanwhile, which take an engine some milliseconds."""

NOT_RECORDED = "not-recorded"
"""In place of a reason: refusals that the siblings only count, because they come too fast."""

_AFTER = b"~"
"""Sorts after any line with the same time."""


class RefusalCounter:
    """Counts the refusals of a stack from the first look on, but for what `conformance` has tried."""

    def __init__(self, project: str, count: Callable[[Sibling, str, int], None]) -> None:
        self._project = project
        self._count = count
        self._read_to: dict[Sibling, bytes] = {}

    def look(self, reader: EngineReader) -> None:
        """Count what has been refused since the last look, by the engine's clock. A failed look changes nothing.

        Raises:
            FirewallError: when a log can't be read, or there is none.
        """
        log_sources, now = sources(reader, self._project), reader.clock()
        names = AgentNames(reader.facts().endpoint, self._project, log_sources.own)
        names.look(log_sources.agents, now)
        read_to = self._read_to or dict.fromkeys(Sibling, stamp(now))
        by_sibling: dict[Sibling, list[Tally]] = {sibling: [] for sibling in Sibling}
        for sibling, container in log_sources.containers:
            with suppress(NotFoundError):  # replaced meanwhile
                by_sibling[sibling].append(records(reader, sibling, container, read_to[sibling] + _AFTER))
        self._read_to = read_to
        for sibling, tallies in by_sibling.items():
            self._take(sibling, tallies, names)

    def _take(self, sibling: Sibling, tallies: list[Tally], names: AgentNames) -> None:
        refusals = together(tallies)
        times: Counter[str] = Counter()
        for refusal in refusals.counted:
            times[refusal.refusal.reason] += 0 if names.is_trial(refusal.refusal.agent) else refusal.times
        self._read_to[sibling] = max([self._read_to[sibling], *(tally.latest for tally in tallies)])
        unrecorded = (number for agent, number in refusals.suppressed.items() if not names.is_trial(agent))
        times[NOT_RECORDED] = sum(unrecorded) + refusals.more
        for word, number in times.items():
            if number and word in {*Reason, NOT_RECORDED}:
                self._count(sibling, word, number)


def keep_counting(
    counter: RefusalCounter,
    connect: Callable[[], AbstractContextManager[EngineReader]],
    report: Callable[[FirewallError], None],
    ended: threading.Event,
) -> None:
    """Count again and again until `ended` is set. What prevents it is reported once, and then tried again.

    A mistake of ours is reported as well: it would end the thread, and the metric would stand still.
    """
    reported = ""
    while True:
        try:
            with connect() as reader:
                counter.look(reader)
            reported = ""
        except Exception as failure:  # noqa: BLE001 - see above
            error = FirewallError(
                "counting-failed",
                f"Refusals can't be counted: {type(failure).__name__}: {failure}.",
                hint="The watcher tries again every 15 s. Please report this.",
            )
            error = failure if isinstance(failure, FirewallError) else error
            if error.message != reported and error.code != "not-up":  # then there is no log
                report(error)
            reported = error.message
        if ended.wait(COUNT_EVERY):
            return
