"""The lines at the end of a program's log that say why it has ended. Pure."""

import re
from collections.abc import Sequence

READ = 400
"""How many lines of a log are read: an Envoy that is started again and again writes a backtrace each time."""

_TOLD = 8

_TIME = re.compile(r"^\[\d{4}-\d\d-\d\d [\d:.]+\]\[\d+\]")
"""The time and thread at the beginning of a line of Envoy's."""

_TRACE = re.compile(r"\]\[backtrace\] \[[^\]]*\] (?!Caught )|^\s*(@|#\d+)\s*(0x|\S+ )|^\s*0x[0-9a-f]+")
"""A line of a backtrace. The one of Envoy that names the signal is none."""

_MILD = re.compile(r"^\[(trace|debug|info|warning)\]")
"""What a line of Envoy's begins with, after its time, that is no reason to end."""


_USUAL = re.compile(r"'CEL' formatter is always enabled")
"""What every Envoy says at its start, and what says nothing of how it ended."""


def telling(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the last lines that say something: each once, and none of a backtrace, which follows what matters.

    Warnings are told only if there is nothing worse.
    """
    last: dict[str, str] = {}
    for line in lines:
        said = _TIME.sub("", line)
        if line.strip() and not _TRACE.search(line) and not _USUAL.search(line):
            last.pop(said, None)  # so that it stands where it was said last
            last[said] = line
    worse = [line for said, line in last.items() if not _MILD.search(said)]
    return tuple(worse or last.values())[-_TOLD:]
