"""Compares two versions of a file: differing values of JSON, and unified diffs."""

import contextlib
import difflib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_CONTEXT = 2
_LONGEST_VALUE = 60
_AROUND = 15
"""Characters shown on each side of a difference in a long value."""

_LONGEST_PATH = 60


@dataclass(frozen=True, slots=True)
class Change:
    """A differing value and its path. None is a missing value."""

    path: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        """Return it in one line: `limits.connections: 1024 → 500`, or as added or removed."""
        path = self.path
        if len(path) > _LONGEST_PATH:
            path = f"{path[: _LONGEST_PATH // 3]}…{path[-(_LONGEST_PATH - _LONGEST_PATH // 3) :]}"
        where = f"{path}: " if path else ""
        if self.before is None:
            return f"+ {where}{self.after}"
        return f"- {where}{self.before}" if self.after is None else f"{where}{self.before} → {self.after}"


def changes(before: bytes, after: bytes) -> list[Change]:
    """Return the differing values of two JSON files; nothing for other files."""
    with contextlib.suppress(ValueError, RecursionError):
        one, other = json.loads(before), json.loads(after)
        for document in (one, other):
            if isinstance(document, dict):
                document.pop("version_info", None)
        return list(_changed("", one, other))
    return []


def _changed(path: str, before: Any, after: Any) -> Iterator[Change]:  # noqa: ANN401 - JSON
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            below = f"{path}.{key}" if path else key
            if key in before and key in after:
                yield from _changed(below, before[key], after[key])
            else:
                yield Change(below, *(_written(side[key]) if key in side else None for side in (before, after)))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _changed_list(path, before, after)
    elif before != after or type(before) is not type(after):  # 1 equals True
        yield Change(path, *shortened(_text(before), _text(after)))


def _changed_list(path: str, before: list[Any], after: list[Any]) -> Iterator[Change]:
    one, other = _by_name(before), _by_name(after)
    if one is not None and other is not None:
        yield from _changed(path, one, other)
    elif len(before) == len(after):
        for place, pair in enumerate(zip(before, after, strict=True)):
            yield from _changed(f"{path}[{place}]", *pair)
    else:
        gone = Counter(map(json.dumps, before))
        gone.subtract(map(json.dumps, after))
        for text, number in gone.items():
            value = _written(json.loads(text))
            yield from [Change(path, value, None) if number > 0 else Change(path, None, value)] * abs(number)


def _by_name(values: list[Any]) -> dict[str, Any] | None:
    named = {
        value["name"]: value for value in values if isinstance(value, dict) and isinstance(value.get("name"), str)
    }
    return named if len(named) == len(values) else None


def _written(value: Any) -> str:  # noqa: ANN401 - JSON
    return _cut(_text(value))


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def shortened(before: str, after: str) -> tuple[str, str]:
    """Return two texts, long ones shortened to the part that differs, with some characters around it."""
    longest = max(len(before), len(after))
    if longest <= _LONGEST_VALUE:
        return before, after
    start = _equal(before, after)
    end = _equal(before[start:][::-1], after[start:][::-1])
    begin = start - _AROUND if start > _AROUND else 0
    behind = end - _AROUND if end > _AROUND else 0
    parts = [_cut(text[begin : len(text) - behind]) for text in (before, after)]
    one, other = (
        f"{'…' if begin else ''}{part}{'…' if behind and not part.endswith('…') else ''}" for part in parts
    )
    return one, other


def _equal(one: str, other: str) -> int:
    """Return the length of the common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def unified(before: bytes, after: bytes, old: str, new: str) -> Iterator[str]:
    """Return a unified diff, in which JSON is first broken into lines.

    The version in Envoy's files is left out: it changes with every commit, and has separate findings.
    """
    return difflib.unified_diff(_lines(before), _lines(after), old, new, n=_CONTEXT)


def _lines(content: bytes) -> list[str]:
    text = content.decode(errors="backslashreplace")
    if text.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(text)
            document.pop("version_info", None)
            text = json.dumps(document, indent=1, sort_keys=True)
    return [f"{line}\n" for line in text.splitlines()]
