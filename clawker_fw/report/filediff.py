"""Unified diffs of two versions of a file, readable, and fast even with many rules."""

import contextlib
import difflib
import json
from collections.abc import Iterator, Sequence

_CONTEXT = 2
_LARGE = 100_000
"""Size in bytes above which JSON is only broken into lines: indenting it takes many times as long."""

_BREAK_AFTER = ",{["
_VERSION = '"version_info":'

Opcode = tuple[str, int, int, int, int]
"""An opcode of `difflib.SequenceMatcher.get_opcodes`: tag, range in the first file, range in the second."""


def unified(before: bytes, after: bytes, old: str, new: str) -> Iterator[str]:
    """Yield the lines of a unified diff. JSON is broken into lines first.

    The version in Envoy's files is left out: it changes with every commit, and has findings of its own.
    """
    one, other = _lines(before), _lines(after)
    opcodes = _of_sorted(one, other)
    if opcodes is None:
        yield from difflib.unified_diff(one, other, old, new, n=_CONTEXT)
        return
    matcher = _Known(one, other, opcodes)
    for number, group in enumerate(matcher.get_grouped_opcodes(_CONTEXT)):
        if number == 0:
            yield f"--- {old}\n"
            yield f"+++ {new}\n"
        yield f"@@ -{_range(group[0][1], group[-1][2])} +{_range(group[0][3], group[-1][4])} @@\n"
        for tag, start, end, other_start, other_end in group:
            if tag == "equal":
                yield from (f" {line}" for line in one[start:end])
            else:
                yield from (f"-{line}" for line in one[start:end])
                yield from (f"+{line}" for line in other[other_start:other_end])


class _Known(difflib.SequenceMatcher[str]):
    """A matcher with precomputed opcodes."""

    def __init__(self, one: Sequence[str], other: Sequence[str], opcodes: list[Opcode]) -> None:
        super().__init__(None, "", "")
        self.a, self.b = one, other
        self._known = opcodes

    def get_opcodes(self) -> list[Opcode]:  # type: ignore[override]  # the stub has a narrower type for the tag
        return self._known


def _range(start: int, end: int) -> str:
    """Return a range in the notation of POSIX unified diffs: lines count from 1; an empty range may start at 0."""
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + bool(length)},{length}"


def _of_sorted(one: Sequence[str], other: Sequence[str]) -> list[Opcode] | None:
    """Return the opcodes for two files whose common lines are in the same order, as in ours; else None.

    A line that only one file has was removed or added, so one pass is enough. Searching for the longest common
    sequences would take seconds with thousands of rules.
    """
    only_one, only_other = set(one).difference(other), set(other).difference(one)
    opcodes: list[Opcode] = []
    at, other_at = 0, 0
    while at < len(one) or other_at < len(other):
        start, other_start = at, other_at
        while at < len(one) and other_at < len(other) and one[at] == other[other_at]:
            at, other_at = at + 1, other_at + 1
        if at > start:
            opcodes.append(("equal", start, at, other_start, other_at))
            continue
        while at < len(one) and one[at] in only_one:
            at += 1
        while other_at < len(other) and other[other_at] in only_other:
            other_at += 1
        if at == start and other_at == other_start:
            return None
        tag = "replace" if at > start and other_at > other_start else "delete" if at > start else "insert"
        opcodes.append((tag, start, at, other_start, other_at))
    return opcodes


def _lines(content: bytes) -> list[str]:
    text = content.decode(errors="backslashreplace")
    if text.startswith("{") and text.count("\n") <= 1:
        if len(content) > _LARGE:
            for mark in _BREAK_AFTER:  # many times as fast as `translate`
                text = text.replace(mark, f"{mark}\n")
            return [f"{line}\n" for line in text.splitlines() if not line.startswith(_VERSION)]
        with contextlib.suppress(ValueError):
            document = json.loads(text)
            document.pop("version_info", None)
            text = json.dumps(document, indent=1, sort_keys=True)
    return [f"{line}\n" for line in text.splitlines()]
