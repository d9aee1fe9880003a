"""Edits the list of rules in the text of a settings file, and leaves every other character as it is.

A YAML writer would format the whole file anew. Here, only the characters of the rules in question are replaced, at
the positions that the parser reports. Then the new text is read: it must hold exactly what was meant, or the edit
is an error. This module knows neither files nor what a rule means.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from clawker_fw.errors import SettingsError
from clawker_fw.rules.yaml_text import yaml_text
from clawker_fw.settings.document import LOADER, parse

KEY = "rules"

Fields = Mapping[str, object]
"""Fields of a rule and their values, in the order in which they are written. None removes a field."""

_Cut = tuple[int, int, str]
"""A part of the text, from a position to another, and what replaces it."""

_Span = tuple[int, int]

_BYTE_ORDER_MARK = "\ufeff"
_LINE_BREAK = re.compile(r"\r\n|\n|\r|\Z")
_REST_OF_LINE = re.compile(r"[ \t]*(#[^\r\n]*)?(?=\r|\n|\Z)")
_COMMENT_LINE = re.compile(r"[ \t]*#")
_SPACES_BEFORE_MORE = re.compile(r"[ \t]+(?![ \t\r\n#]|\Z)")


@dataclass(frozen=True, slots=True)
class Edit:
    """What to do with the rules at these positions in the list, and which to add at its end."""

    changed: Mapping[int, Fields] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()
    added: Sequence[Fields] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.changed or self.removed or self.added)


def spliced(text: str, edit: Edit, source: str) -> str:
    """Return the text of a settings file with its rules edited. `source` is its name, for errors.

    Raises:
        SettingsError: when the text is not YAML, or its form can't be edited without touching anything else.
    """
    if edit.empty:
        return text
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    values, _ = parse(text, source)
    page = _Page(text)
    after = _replaced(text, page.cuts(edit))
    if not _holds(after, _meant(values or {}, edit, as_json=page.as_json)):
        raise SettingsError(
            "rules-not-editable",
            f"The form of {source} is one in which rules can't be edited in place; nothing has been changed.",
            hint="Edit the file by hand, or write each rule on a line of its own.",
        )
    return mark + after


def _replaced(text: str, cuts: Sequence[_Cut]) -> str:
    parts, position = [], 0
    for start, end, replacement in sorted(cuts, key=lambda cut: cut[0]):
        parts += [text[position : max(start, position)], replacement]
        position = max(end, position)
    return "".join([*parts, text[position:]])


def _meant(values: dict[str, Any], edit: Edit, *, as_json: bool) -> dict[str, Any]:
    """Return the values that the edited text must have."""

    def read(fields: Fields) -> dict[str, Any]:
        given = {name: value for name, value in fields.items() if value is not None}
        return {name: parse(_scalar(value, as_json=as_json), "")[0] for name, value in given.items()}

    rules: list[Any] = []
    for position, rule in enumerate(values.get(KEY, [])):
        if position in edit.removed:
            continue
        fields = edit.changed.get(position, {})
        rules.append({**rule, **read(fields)} if fields else rule)
        for name in (name for name, value in fields.items() if value is None):
            rules[-1].pop(name, None)
    return {**values, KEY: [*rules, *(read(fields) for fields in edit.added)]}


def _holds(text: str, values: dict[str, Any]) -> bool:
    try:
        return bool(parse(text, "")[0] == values)
    except SettingsError:
        return False


def _scalar(value: object, *, as_json: bool = False) -> str:
    """Return a value as YAML that is read as just this value; it is JSON as well if that is wanted."""
    if isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, datetime):
        written = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json.dumps(written) if as_json else written
    return yaml_text(str(value), as_json=as_json)


class _Page:
    """A text and the positions in it. All positions are indexes of characters."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root = yaml.compose(text, Loader=LOADER)
        self.as_json = isinstance(self._root, yaml.CollectionNode) and bool(self._root.flow_style)
        self._newline = _LINE_BREAK.search(text)[0] or "\n"  # type: ignore[index]  # it matches at the end
        self._commas: list[int] = []
        self._dashes: list[int] = []
        self._long_scalars: list[_Span] = []  # a line of these may look like a comment
        for token in yaml.scan(text, Loader=LOADER):
            if isinstance(token, yaml.FlowEntryToken):
                self._commas.append(token.start_mark.index)
            elif isinstance(token, yaml.BlockEntryToken):
                self._dashes.append(token.start_mark.index)
            elif isinstance(token, yaml.ScalarToken) and token.start_mark.line < token.end_mark.line:
                self._long_scalars.append((token.start_mark.index, token.end_mark.index))

    def cuts(self, edit: Edit) -> list[_Cut]:
        """Return what to replace where."""
        pairs = self._root.value if isinstance(self._root, yaml.MappingNode) else []
        found = next(((key, value) for key, value in pairs if key.value == KEY), None)
        if found is None:
            start = self._newline if self._text and not self._text.endswith(("\n", "\r")) else ""
            end = len(self._text)
            return [(end, end, f"{start}{KEY}:{self._block('  ', edit.added)}{self._newline}")]
        key, rules = found
        items = rules.value if isinstance(rules, yaml.SequenceNode) else []
        cuts: list[_Cut] = []
        for position, fields in edit.changed.items():
            cuts += self._change(items[position], fields)
        if edit.removed:
            cuts += self._remove(key, rules, edit.removed)
        if edit.added:
            cuts += self._add(key, rules, edit.added)
        return cuts

    # --- positions -------------------------------------------------------------------------------------------

    def _span(self, node: yaml.Node) -> _Span:
        return node.start_mark.index, self._end(node)

    def _end(self, node: yaml.Node) -> int:
        """Return where a node's last character ends. The parser's mark may be far behind, after comments."""
        while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            node = last[1] if isinstance(last, tuple) else last
        start = node.start_mark.index
        return int(start + len(self._text[start : node.end_mark.index].rstrip()))

    def _line_start(self, position: int) -> int:
        return max(self._text.rfind(each, 0, position) for each in "\r\n") + 1

    def _line_end(self, position: int) -> _Span:
        """Return where the line break after a position starts and ends."""
        found = _LINE_BREAK.search(self._text, position)
        return found.span() if found else (len(self._text), len(self._text))

    def _indent(self, position: int) -> str | None:
        """Return what comes before a position on its line, if that is only space."""
        before = self._text[self._line_start(position) : position]
        return before if not before.strip(" \t") else None

    def _ends_line(self, position: int) -> bool:
        return _REST_OF_LINE.match(self._text, position) is not None

    def _comma(self, start: int, end: int) -> int | None:
        """Return the position of the first comma between two entries."""
        place = bisect_left(self._commas, start)
        return self._commas[place] if place < len(self._commas) and self._commas[place] < end else None

    def _after_colon(self, key: yaml.Node) -> int:
        return self._text.index(":", key.end_mark.index) + 1

    def _comment_lines(self, start: int, end: int) -> Iterator[_Span]:
        """Yield the lines between two positions that are just comments, each with its line break."""
        line = start if self._line_start(start) == start else self._line_end(start)[1]
        while line < end:
            following = self._line_end(line)[1]
            if _COMMENT_LINE.match(self._text, line) and not self._in_long_scalar(line):
                yield line, following
            line = following

    def _in_long_scalar(self, position: int) -> bool:
        place = bisect_right(self._long_scalars, position, key=lambda span: span[0])
        return place > 0 and position < self._long_scalars[place - 1][1]

    # --- removing --------------------------------------------------------------------------------------------

    def _cut(self, start: int, end: int) -> Iterator[_Cut]:
        """Cut a part of the text, except for comments that have lines of their own in it."""
        comments = list(self._comment_lines(start, end))
        before = after = ""
        if comments and self._line_start(start) != start:  # then what is left of the line goes around them
            before = self._newline
            after = self._indent(self._text.index("#", comments[-1][0])) or ""
        for line, following in comments:
            yield start, line, before
            start, before = following, ""
        yield start, end, after

    def _remove(self, key: yaml.Node, rules: yaml.SequenceNode, removed: frozenset[int]) -> Iterator[_Cut]:
        if rules.flow_style:
            yield from self._cut_entries([self._span(item) for item in rules.value], removed, rules)
            return
        for position in sorted(removed):
            start, end = self._span(rules.value[position])
            dash = self._dashes[bisect_right(self._dashes, start) - 1]
            yield from self._cut(self._line_start(dash), self._line_end(end)[1])
        if len(removed) == len(rules.value):  # a key without a value would be no list
            colon = self._after_colon(key)
            yield colon, colon, " []"

    def _cut_entries(
        self, spans: Sequence[_Span], removed: frozenset[int], around: yaml.CollectionNode
    ) -> Iterator[_Cut]:
        """Cut entries of a flow collection, each with its comma. The last one keeps having one, or none."""
        close = around.end_mark.index - 1
        ends = [*(start for start, _ in spans[1:]), close]
        for position in sorted(removed):
            start, end = spans[position]
            comma = self._comma(end, ends[position])
            if comma is None:  # it is the last: the one before it becomes the last
                kept = max((each for each in range(len(spans)) if each not in removed), default=None)
                comma = None if kept is None else self._comma(spans[kept][1], ends[kept])
            elif not self._text[end:comma].strip(" \t"):
                end, comma = comma + 1, None
            if comma is not None:
                yield from self._cut_with_spaces(comma, comma + 1)
            if self._indent(start) is not None and self._ends_line(end):
                yield from self._cut(self._line_start(start), self._line_end(end)[1])
            else:
                yield from self._cut_with_spaces(start, end)

    def _cut_with_spaces(self, start: int, end: int) -> Iterator[_Cut]:
        """Cut a part of a line, with the space between it and what follows on the line."""
        space = _SPACES_BEFORE_MORE.match(self._text, end)
        yield from self._cut(start, space.end() if space else end)

    def _cut_fields(self, spans: Sequence[_Span], removed: frozenset[int]) -> Iterator[_Cut]:
        """Cut fields of a block mapping with their lines. What comes before the first one, a dash, stays."""
        for place in sorted(removed):
            start, end = spans[place]
            yield from self._cut(self._line_start(start), self._line_end(end)[1])
        first, _ = spans[0]
        if 0 in removed and self._indent(first) is None:
            start, _ = next(span for place, span in enumerate(spans) if place not in removed)
            yield self._line_start(start), start, self._text[self._line_start(first) : first]

    # --- changing --------------------------------------------------------------------------------------------

    def _change(self, item: yaml.MappingNode, fields: Fields) -> Iterator[_Cut]:
        pairs = {key.value: (key, value) for key, value in item.value}
        removed = {name for name, value in fields.items() if value is None and name in pairs}
        spans = [(key.start_mark.index, self._end(value)) for key, value in item.value]
        positions = frozenset(place for place, name in enumerate(pairs) if name in removed)
        if item.flow_style:
            yield from self._cut_entries(spans, positions, item)
        else:
            yield from self._cut_fields(spans, positions)
        for name, value in fields.items():
            if name in pairs and value is not None:
                start, end = self._span(pairs[name][1])
                space = " " if self._text[start - 1] == ":" else ""
                yield start, end, space + self._value(value)
        missing = [(name, value) for name, value in fields.items() if name not in pairs and value is not None]
        if not missing:
            return
        start, end = [span for span, name in zip(spans, pairs, strict=True) if name not in removed][-1]
        indent = self._indent(start)
        if item.flow_style:
            between = "," + (" " if indent is None else self._newline + indent)
            yield end, end, "".join(between + self._pair(name, value) for name, value in missing)
        else:
            end = self._line_end(end)[0]
            between = self._newline + " " * item.value[0][0].start_mark.column
            yield end, end, "".join(between + self._pair(name, value) for name, value in missing)

    # --- adding ----------------------------------------------------------------------------------------------

    def _add(self, key: yaml.Node, rules: yaml.Node, added: Sequence[Fields]) -> list[_Cut]:
        if not isinstance(rules, yaml.SequenceNode):  # a key without a value
            return [self._below(self._after_colon(key), added)]
        if not rules.value:
            return self._fill(key, rules, added)
        last = rules.value[-1]
        start, end = self._span(last)
        if rules.flow_style:
            return self._add_entries(start, end, rules, added)
        dash = self._dashes[bisect_right(self._dashes, start) - 1]
        end = self._line_end(end)[0]
        indent = self._text[self._line_start(dash) : dash]
        return [(end, end, self._block(indent, added, in_flow=bool(last.flow_style)))]

    def _below(self, position: int, added: Sequence[Fields]) -> _Cut:
        """Write a new block list below the line of a position."""
        end = self._line_end(position)[0]
        return end, end, self._block("  ", added)

    def _add_entries(self, start: int, end: int, rules: yaml.SequenceNode, added: Sequence[Fields]) -> list[_Cut]:
        """Add entries to a flow list after its last one, which is at `start` to `end`."""
        indent = self._indent(start)
        between = " " if indent is None else self._newline + indent
        comma = self._comma(end, rules.end_mark.index)
        entries = [between + self._flow(fields) for fields in added]
        after = end if comma is None else comma + 1
        place = self._line_end(after)[0] if indent is not None and self._ends_line(after) else after
        if comma is None:
            return [(end, end, ","), (place, place, ",".join(entries))]
        return [(place, place, "".join(f"{entry}," for entry in entries))]

    def _fill(self, key: yaml.Node, rules: yaml.SequenceNode, added: Sequence[Fields]) -> list[_Cut]:
        """Add entries to an empty flow list."""
        start, close = rules.start_mark.index, rules.end_mark.index - 1
        inside = self._text[start + 1 : close]
        if "\n" in inside or "\r" in inside:
            place = self._line_start(close)
            comment = next((line for line in reversed(inside.splitlines()) if line.strip(" \t")), "")
            indent = comment[: len(comment) - len(comment.lstrip(" \t"))] or f"{self._indent(close) or ''}  "
            between = f",{self._newline}{indent}"
            end = "" if self.as_json else ","
            entries = between.join(self._flow(fields) for fields in added)
            return [(place, place, f"{indent}{entries}{end}{self._newline}")]
        colon = self._after_colon(key)
        if self.as_json or self._text[colon:start].strip(" \t") or not self._ends_line(close + 1):
            return [(start + 1, close, ", ".join(self._flow(fields) for fields in added))]
        return [(colon, close + 1, ""), self._below(close, added)]

    # --- writing ---------------------------------------------------------------------------------------------

    def _block(self, indent: str, added: Sequence[Fields], *, in_flow: bool = False) -> str:
        """Return new lines of a block list, each after a line break."""
        lines = []
        for fields in added:
            pairs = [self._flow(fields)] if in_flow else [self._pair(*pair) for pair in fields.items()]
            lines += [f"{indent}{'  ' if place else '- '}{pair}" for place, pair in enumerate(pairs)]
        return "".join(self._newline + line for line in lines)

    def _flow(self, fields: Fields) -> str:
        return "{" + ", ".join(self._pair(name, value) for name, value in fields.items()) + "}"

    def _pair(self, name: str, value: object) -> str:
        return f"{json.dumps(name) if self.as_json else name}: {self._value(value)}"

    def _value(self, value: object) -> str:
        return _scalar(value, as_json=self.as_json)
