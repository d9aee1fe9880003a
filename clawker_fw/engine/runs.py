"""Runs of lines: what an engine can read of a log with lines that were cut off, as on a disk that was full.

At such a line, an engine ends what it sends, or goes on somewhere after it. But it finds the last lines by their
ends alone, and then sends exactly as many as it was asked for, unless one of them is cut. So such a log is read
from its end: as many lines as come in full are one run, and what is before the cut line is the next one.
"""

from collections.abc import Callable
from functools import partial

from clawker_fw.engine.port import EngineReader

_MOST_CUT = 200
"""After how many cut lines no more is read."""

_ENOUGH = 2
"""After how many cut lines at its beginning a log counts as read."""

_GROWTH = 8
_TRIES = 3
"""How often a question is asked again because lines were written meanwhile."""


def complete(reader: EngineReader, container: str, first: bytes, last: bytes, number: int) -> bool:
    """Whether so many lines, of which the first and the last are given, are all of a log from the first one on."""
    for _ in range(_TRIES):
        newer = _newer(reader, container, last)
        if newer is None:
            return False
        with reader.log(container, number + newer) as log:
            found = next((some[0] for some in log), b"")
        if found == first:
            return True
        if _newer(reader, container, last) == newer:
            return False
    return True  # more is written than can be read


def runs(reader: EngineReader, container: str, since: bytes) -> list[list[bytes]]:
    """Return all runs of a log, oldest first, as far back as a time as an engine writes it.

    The last one is empty if the newest line is cut.
    """
    with reader.log(container, None) as log:
        beginning = next((some[0] for some in log), b"")
    found: list[list[bytes]] = []
    behind, follows, newest, nothing = 0, b"", b"", 0
    for _ in range(_MOST_CUT):
        run = _run(partial(_before, reader, container, behind, newest), follows)
        behind += len(run) + 1
        if run or not found:
            found.append(run)
        if run:
            follows, newest = run[0], newest or run[-1]
        nothing = 0 if run else nothing + 1
        # Before the first line that comes of the whole log, there may be some after one that was cut.
        if follows and (follows < since or (follows <= beginning and nothing == _ENOUGH)):
            break
    return found[::-1]


def last_run(reader: EngineReader, container: str, most: int) -> list[bytes]:
    """Return the last lines of a log that can be read together, at most so many."""
    return _run(partial(_last, reader, container), b"", most)


def _last(reader: EngineReader, container: str, number: int) -> list[bytes]:
    with reader.log(container, number) as log:
        return [line for some in log for line in some]


def _before(reader: EngineReader, container: str, behind: int, newest: bytes, number: int) -> list[bytes]:
    """Return what is sent from so many lines before the last ones on, `behind` and those after `newest`."""
    newer = (_newer(reader, container, newest) or 0) if newest else 0
    return _last(reader, container, behind + newer + number)


def _newer(reader: EngineReader, container: str, line: bytes) -> int | None:
    """Return how many lines were written after a line, or None if a cut one is among them."""
    number = 1
    while True:
        found = _last(reader, container, number)
        if found and found[0] <= line:
            return sum(each > line for each in found)
        if len(found) < number:
            return None
        number *= _GROWTH


def _run(read: Callable[[int], list[bytes]], follows: bytes, most: int = 1 << 30) -> list[bytes]:
    """Return the longest run that ends before the line that follows, or at the end of the log."""

    def whole(number: int) -> list[bytes]:
        """Return so many lines, or none if one is cut. What is sent beyond them is from after that."""
        lines = read(number)
        if len(lines) < number or (follows and lines[number - 1] >= follows):
            return []
        return lines[:number]

    good: list[bytes] = []
    bad = 1
    while bad <= most and (lines := whole(bad)):
        good, bad = lines, bad * _GROWTH
    bad = min(bad, most + 1)
    while bad - len(good) > 1:
        middle = (len(good) + bad) // 2
        if lines := whole(middle):
            good = lines
        else:
            bad = middle
    return good
