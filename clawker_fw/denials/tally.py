"""Counting the refusals in a log, and the lines that are missing in it.

An agent chooses the names in them, so the number of different refusals that are kept is bounded.
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
from clawker_fw.model.stacks import Sibling

MOST_DIFFERENT = 100_000
"""Different refusals that are kept. More are only counted."""


class Numbering:
    """Which lines of a log are missing, by the numbers of those that are there.

    The numbers begin with 1 when a recorder starts. Those of an earlier release have none. An engine whose disk is
    full loses some lines without a trace.
    """

    def __init__(self, sibling: Sibling) -> None:
        self._sibling = sibling
        self.last = 0
        """The number of the last line, or 0 if none had one."""
        self._stamp = ""

    def add(self, records: Iterable[Record]) -> list[Gap]:
        """Take in the next records, and return where some are missing before or between them."""
        gaps = []
        for moment, record in records:
            if number := number_in(record, "line"):
                if self.last and number > self.last + 1:
                    gaps.append(Gap(self._sibling, self._stamp, moment))
                self.last, self._stamp = number, moment
        return gaps

    def missing_after(self, written: int | None) -> Gap | None:
        """Return the gap at the end of a log, if more lines were written than the last one's number says."""
        missing = written is not None and written > self.last > 0
        return Gap(self._sibling, self._stamp, None) if missing else None


class Tally:
    """How often each thing was refused, and when last, by one sibling."""

    def __init__(self, sibling: Sibling) -> None:
        self.sibling = sibling
        self.counted: dict[Refusal, Counted] = {}
        self.more = 0
        """Refusals that were not kept."""
        self.suppressed: Counter[str] = Counter()
        """Refusals that the siblings have only counted, by the agent's address."""
        self.latest = b""
        """When the last record was written, as an engine writes it."""
        self.gaps: list[Gap] = []
        """Where the log has lines that were cut off, or lacks some."""
        self.numbering = Numbering(sibling)

    def add(self, lines: Sequence[bytes], since: bytes = b"", *, own: bool = False) -> None:
        """Count the lines that are records of refusals and not older than `since`, a time like theirs.

        In the container's `own` log, which is added in order, none may be missing.
        """
        # Of the earlier ones, only the last one is read: by its number, a gap behind it is known.
        earlier = [line for line in lines if line < since and is_record(line)]
        records = list(records_in([*earlier[-1:], *(line for line in lines if line >= since)]))
        if own:
            gaps = self.numbering.add(records)
            self.gaps += [gap for gap in gaps if (gap.until or "").encode() >= since and gap not in self.gaps]
        records = [(moment, record) for moment, record in records if moment.encode() >= since]
        for moment, record in records:
            self.latest = max(self.latest, moment.encode())
            if number := number_in(record, "suppressed"):
                self.suppressed[agent_in(record)] += number
        for refused in refusals_in(self.sibling, records):
            if known := self.counted.get(refused.refusal):
                known.add(refused)
            elif len(self.counted) < MOST_DIFFERENT:
                self.counted[refused.refusal] = refused
            else:
                self.more += 1


def together(tallies: Sequence[Tally]) -> Refusals:
    """Return what several tallies have counted, of each refusal all together."""
    found: dict[Refusal, Counted] = {}
    suppressed: Counter[str] = Counter()
    for tally in tallies:
        suppressed += tally.suppressed
        for refused in tally.counted.values():
            if known := found.get(refused.refusal):
                known.add(refused)
            else:
                found[refused.refusal] = refused
    counted = tuple(sorted(found.values(), key=lambda each: each.last))
    gaps = tuple(gap for tally in tallies for gap in tally.gaps)
    return Refusals(counted, sum(tally.more for tally in tallies), suppressed, gaps)
