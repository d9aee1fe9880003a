"""Counting the lines of a log. Lines of equal refusals are equal octets, but for their time and the agent's port.

So a log of a million lines is counted without reading a line as JSON; only lines that differ are read
(`refusal.py`). An agent chooses the names in them, so the number of different lines that are kept is bounded.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clawker_fw.engine.outputs import STAMP

MOST_LINES = 100_000
"""Different lines that are kept. More are only counted."""

_TIME = re.compile(rb'"time":"[^"]*"')
_SHORTEST, _LONGEST = len("1.1.1.1"), len("255.255.255.255")
_SOURCES = b"|".join(rb'(?<="source":"[0-9.]{%d}:)' % size for size in range(_SHORTEST, _LONGEST + 1))
_PORT = re.compile(rb':(?<=[0-9]:)(?:%b)[0-9]+"' % _SOURCES)
_NUMBER = re.compile(rb',"suppressed":[0-9]+')
"""What varies. A pattern that begins with a constant is found quickest: any other is tried at every octet. And a
constant replacement is quickest: a template is expanded in Python. Only the agent's port is left out: a path
may end like one. In text that an agent has chosen, quotation marks are escaped."""

_LINE = re.compile(rb',"line":([0-9]+)}$', re.MULTILINE)
"""The number that the recorder gives each line. An engine whose disk is full loses some without a trace."""

_SUPPRESSED = re.compile(rb'"source":"([^":]*)[^\n]*,"suppressed":([0-9]+)')


@dataclass(frozen=True, slots=True)
class Gap:
    """Between these times (RFC 3339), lines of a log are missing, nobody knows how many. An empty one is open."""

    since: str
    until: str


class Numbering:
    """Which lines of a log are missing, by the numbers of those that are there.

    The numbers begin with 1 when a recorder starts. Those of an earlier release have none.
    """

    def __init__(self) -> None:
        self.last = 0
        """The number of the last line, or 0 if none had one."""
        self._stamp = ""

    def add(self, lines: Sequence[bytes]) -> list[Gap]:
        """Take in the next lines, each with its time, and return where some are missing before or between them."""
        text = b"\n".join([line.rstrip(b"\n") for line in lines])
        numbers = [int(number) for number in _LINE.findall(text)]
        if not numbers:
            return []
        whole = len(numbers) == len(lines) and numbers[-1] - numbers[0] == len(lines) - 1
        if whole and numbers[0] == self.last + 1:
            self.last, self._stamp = numbers[-1], lines[-1][:STAMP].decode()
            return []
        gaps = []
        for line in lines:
            if (found := _LINE.search(line.rstrip(b"\n"))) is None:
                continue
            number, moment = int(found[1]), line[:STAMP].decode()
            if self.last and number > self.last + 1:
                gaps.append(Gap(self._stamp, moment))
            self.last, self._stamp = number, moment
        return gaps

    def missing_after(self, written: int | None) -> Gap | None:
        """Return the gap at the end of a log, if more lines were written than the last one's number says."""
        return Gap(self._stamp, "") if written is not None and written > self.last > 0 else None


class Tally:
    """How often each line was written, and when last, of one sibling."""

    def __init__(self) -> None:
        self._times: Counter[bytes] = Counter()
        self._last: dict[bytes, bytes] = {}
        self.more = 0
        """Refusals in lines that were not kept."""
        self.suppressed: Counter[str] = Counter()
        """Refusals that the siblings have only counted, by the agent's address."""
        self.latest = b""
        """When the last line was written, as an engine writes it."""
        self.gaps: list[Gap] = []
        """Where the log has lines that were cut off, or lacks some."""
        self.numbering = Numbering()

    def add(self, lines: list[bytes], since: bytes = b"") -> None:
        """Count the lines that are records of refusals and not older than `since`, a time like theirs."""
        records = [line for line in lines if line[STAMP + 1 : STAMP + 2] == b"{"]
        if records and records[0] < since:
            records = [line for line in records if line >= since]
        if not records:
            return
        self.latest = max(self.latest, records[-1][:STAMP])
        text = b"".join([line[STAMP + 1 :] for line in records])
        if b',"suppressed":' in text:
            for source, count in _SUPPRESSED.findall(text):
                self.suppressed[source.decode()] += int(count)
            text = _NUMBER.sub(b"", text)
        if b',"line":' in text:
            text = _LINE.sub(b"}", text)
        bodies = _PORT.sub(b'"', _TIME.sub(b'"time":0', text)).split(b"\n")[: len(records)]
        if len(self._times) + len(bodies) > MOST_LINES:
            kept = [at for at, body in enumerate(bodies) if self._has_room(body)]
            self.more += len(bodies) - len(kept)
            bodies, records = [bodies[at] for at in kept], [records[at] for at in kept]
        self._times.update(bodies)
        self._last.update(zip(bodies, [line[:STAMP] for line in records], strict=True))

    def add_own(self, lines: list[bytes], since: bytes = b"") -> None:
        """Count the next lines of the container's own log, in which none may be missing."""
        self.gaps += [gap for gap in self.numbering.add(lines) if gap.until.encode() >= since]
        self.add(lines, since)

    def add_runs(self, runs: Sequence[list[bytes]], since: bytes) -> None:
        """Count the lines of all runs of a log. Between two of them is a gap."""
        before = ""
        for run in runs:
            first = run[0][:STAMP] if run else b""
            if before and not b"" < first < since:
                self.gaps.append(Gap(before, first.decode()))
            before = run[-1][:STAMP].decode() if run else before
            told = {(gap.since, gap.until) for gap in self.gaps}
            self.gaps += [
                gap
                for gap in self.numbering.add(run)
                if gap.until.encode() >= since and (gap.since, gap.until) not in told
            ]
            self.add(run, since)

    def _has_room(self, body: bytes) -> bool:
        """Whether a line is kept: it is known, or becomes known, with no times yet."""
        if body not in self._times and len(self._times) < MOST_LINES:
            self._times[body] = 0
        return body in self._times

    def __iter__(self) -> Iterator[tuple[bytes, int, str]]:
        """Yield each different line, how often it was written, and when last."""
        for body, times in self._times.items():
            yield body, times, self._last[body].decode()
