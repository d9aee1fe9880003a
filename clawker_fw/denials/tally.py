"""Counts the refusals in a log, and finds missing lines.

Agents choose the names, so the number of different refusals is limited.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from clawker_fw.denials.refusal import (
    Counted,
    Gap,
    Record,
    Refusal,
    Refusals,
    agent_in,
    is_record,
    number_in,
    records_in,
    refusals_in,
)
from clawker_fw.fwctl import Suppressed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.handed_over import UNKNOWN_AGENT

MOST_DIFFERENT = 100_000
"""The number of different refusals that are stored; others are only counted."""


class Numbering:
    """Finds missing lines of a log by the lines' numbers.

    Numbers begin with 1 when a container starts, and leave a gap when only its recorder starts again. Earlier
    releases have none. An engine with a full disk loses lines without a trace.
    """

    def __init__(self, sibling: Sibling) -> None:
        self._sibling = sibling
        self.last = 0
        """The number of the last line, or 0 if no line had one."""
        self._stamp = ""

    def add(self, records: Iterable[Record]) -> list[Gap]:
        """Add the next records, and return the gaps before and between them."""
        gaps = []
        for moment, record in records:
            if number := number_in(record, "line"):
                if self.last and number > self.last + 1:
                    gaps.append(Gap(self._sibling, self._stamp, moment))
                self.last, self._stamp = number, moment
        return gaps

    def missing_after(self, written: int | None) -> Gap | None:
        """Return the gap at the end of a log, given how many lines were written."""
        return Gap(self._sibling, self._stamp, None) if written and written > self.last > 0 else None


class Tally:
    """One container's refusals, with counts and times. `told` are those that its helper has only counted."""

    def __init__(self, sibling: Sibling, suppressed: Suppressed | None = None) -> None:
        self.sibling = sibling
        self.reported = suppressed or Suppressed(0)
        self.counted: dict[Refusal, Counted] = {}
        self.more = 0
        """Refusals beyond the limit on different ones."""
        self.suppressed: Counter[str] = Counter()
        """Refusals that were counted but not logged, by the agent's address."""
        self.latest = b""
        """The engine's time of the last record."""
        self.gaps: list[Gap] = []
        """Truncated or missing lines."""
        self.numbering = Numbering(sibling)

    def add(self, lines: Sequence[bytes], since: bytes = b"", *, own: bool = False) -> None:
        """Count the refusals in lines since a time in their form.

        The container's `own` log is added in order and checked for missing lines.
        """
        # Of the older lines, only the last record is parsed: its number shows a gap after it.
        earlier = [line for line in lines if line < since and is_record(line)]
        records = list(records_in([*earlier[-1:], *(line for line in lines if line >= since)]))
        if own:
            gaps = self.numbering.add(records)
            self.gaps += [gap for gap in gaps if (gap.until or "").encode() >= since and gap not in self.gaps]
            records = [(moment, record) for moment, record in records if not self.reported.include(record)]
        records = [(moment, record) for moment, record in records if moment.encode() >= since]
        self.latest = max([self.latest, *(moment.encode() for moment, _ in records)])
        self._count(records)

    def add_waiting(self, since: bytes) -> None:
        """Count the refusals since a time that wait for room in the log."""
        waiting = [(str(record.get("last", "")), record) for record in self.reported.counted]
        self._count([(moment, record) for moment, record in waiting if moment.encode() >= since])

    def _count(self, records: Sequence[Record]) -> None:
        for _, record in records:
            if number := number_in(record, "suppressed"):
                self.suppressed[agent_in(record)] += number
        for refused in refusals_in(self.sibling, records):
            if counted_before := self.counted.get(refused.refusal):
                counted_before.add(refused)
            elif len(self.counted) < MOST_DIFFERENT:
                self.counted[refused.refusal] = refused
            else:
                self.more += 1


def together(tallies: Sequence[Tally]) -> Refusals:
    """Merge tallies, adding up equal refusals."""
    by_refusal: dict[Refusal, Counted] = {}
    suppressed: Counter[str] = Counter()
    for tally in tallies:
        suppressed.update(tally.suppressed)
        for refused in tally.counted.values():
            if counted_before := by_refusal.get(refused.refusal):
                counted_before.add(refused)
            else:
                by_refusal[refused.refusal] = refused
    refusing = {refusal.sibling for refusal in by_refusal}
    for tally in tallies:
        if tally.sibling in refusing:  # the first refusals are always logged
            suppressed.update({UNKNOWN_AGENT: tally.reported.refusals, **tally.reported.dropped})
    counted = tuple(sorted(by_refusal.values(), key=lambda refusal: refusal.last))
    gaps = tuple(gap for tally in tallies for gap in tally.gaps)
    return Refusals(counted, sum(tally.more for tally in tallies), +suppressed, gaps)
