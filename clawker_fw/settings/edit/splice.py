"""Edits the list of rules in the text of a settings file, and keeps every other character.

A YAML writer would reformat the file. Here, only the affected rules are replaced, at the parser's positions: whole
lines of a list with dashes, or a one-line list or mapping in brackets or braces. Then the new text is parsed: it
must hold exactly the intended values, or the edit fails. This module knows neither files nor what a rule means.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

from clawker_fw.errors import SettingsError
from clawker_fw.rendering import yaml_text
from clawker_fw.rules.until import rfc3339
from clawker_fw.settings.document import LOADER, Location, parse
from clawker_fw.settings.groups import own_location, own_values

KEY = "rules"

Fields = Mapping[str, object]
"""A rule's fields and values, in the order in which they are written. None removes a field."""

_Cut = tuple[int, int, str]
"""The start and end of a part of the text, and its replacement."""

_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Appended:
    """Values that are appended to a list, or become a new one."""

    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """The changes to rules by their index in the list, and the rules to append.

    `sections` are other settings with their new value; None removes one.
    """

    changed: Mapping[int, Fields] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()
    added: Sequence[Fields] = ()
    sections: Mapping[str, Fields | Appended | None] = field(default_factory=dict)

    @property
    def of_rules(self) -> bool:
        """Whether it changes rules."""
        return bool(self.changed or self.removed or self.added)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.of_rules or self.sections)


def spliced(text: str, edit: Edit, source: str, group: str | None = None) -> str:
    """Return a settings file's text with the rules of the top level or of a group edited.

    `source` names the file in errors.

    Raises:
        SettingsError: when the text is not YAML, or its form can't be edited without changing anything else.
    """
    if edit.empty:
        return text
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    values, location = parse(text, source)[0] or {}, own_location(group)
    own = own_values(values, location)
    rules = [_changed(rule, edit.changed.get(place, {})) for place, rule in enumerate(own.get(KEY) or [])]
    kept = [rule for place, rule in enumerate(rules) if place not in edit.removed]
    meant = [*kept, *map(_read, edit.added)]
    page, cuts = _Page(text, location), list[_Cut]()
    expected = _changed(dict(own), edit.sections)
    for name, value in edit.sections.items():
        cuts += page.section(name, value, expected.get(name))
    if edit.of_rules:
        expected[KEY] = meant
        cuts += page.cuts(edit, rules, meant)
    after = text if page.in_braces else _replaced(text, cuts)
    if not _holds(after, _at(location, values, expected)):
        raise SettingsError(
            "rules-not-editable",
            f"The form of {source} is one in which rules can't be edited in place; nothing has been changed.",
            hint="Edit the file by hand, or write `rules:` on a line of its own and each rule below it as "
            "`- {dst: …}`.",
        )
    return mark + after


def _replaced(text: str, cuts: Iterable[_Cut]) -> str:
    parts, position = [], 0
    for start, end, replacement in sorted(cuts, key=lambda cut: cut[0]):
        parts += [text[position : max(start, position)], replacement]
        position = max(end, position)
    return "".join([*parts, text[position:]])


def _changed(rule: dict[str, Any], fields: Fields) -> dict[str, Any]:
    new = _read(fields)
    for name in (key for key, value in fields.items() if isinstance(value, Appended)):
        new[name] = [*(rule.get(name) or []), *new[name]]
    return {name: value for name, value in {**rule, **new}.items() if fields.get(name, "") is not None}


def _read(fields: Fields) -> dict[str, Any]:
    return {name: parse(scalar(value), "")[0] for name, value in fields.items() if value is not None}


def _at(location: Location, values: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the values with these of its own at a location."""
    if not location:
        return own
    first, rest = str(location[0]), location[1:]
    return {**values, first: _at(rest, values.get(first) or {}, own)}


def _holds(text: str, values: dict[str, Any]) -> bool:
    try:
        return bool(parse(text, "")[0] == values)
    except SettingsError:
        return False


def scalar(value: object) -> str:
    """Return a value as YAML that reads back as the same value."""
    if isinstance(value, Appended):
        return scalar(value.items)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{yaml_text(key)}: {scalar(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(scalar, value))}]"
    if isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, datetime):
        return rfc3339(value.timestamp())
    return yaml_text(str(value))


def pair(name: str, value: object) -> str:
    """Return a field of a rule as a line of YAML."""
    return f"{name}: {scalar(value)}"


class _Page:
    """A text, and the settings at a location in it. Positions are character indexes."""

    def __init__(self, text: str, within: Location) -> None:
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._above: Any = None
        """The key of the settings."""
        self._parent: Any = yaml.compose(text, Loader=LOADER)
        for part in within:
            self._above, self._parent = _entry(self._parent, str(part))
        pairs = self._parent.value if isinstance(self._parent, yaml.MappingNode) else []
        self._indent = " " * pairs[0][0].start_mark.column if pairs else ""
        self.in_braces = isinstance(self._parent, yaml.MappingNode) and self._parent.flow_style
        """Whether the settings are in braces: JSON must stay JSON."""

    def cuts(self, edit: Edit, rules: Sequence[Any], meant: Sequence[Any]) -> Iterator[_Cut]:
        """Yield the replacements, given the existing `rules` and the `meant` result."""
        key, node = _entry(self._parent, KEY)
        before = f"{self._indent}  - "
        if key is None or node is None:
            yield self._new(f"{KEY}:{self._block(before, edit.added)}")
        elif not rules:
            if isinstance(node, yaml.SequenceNode):  # and not a key without a value
                yield from ((key.end_mark.index + 1, end, "") for _, end, _ in _anew(node, meant))
            yield self._below(key.end_mark.index, self._block(before, edit.added))
        elif node.flow_style:
            yield from _anew(node, meant)
        else:
            yield from self._in_lines(key, node, edit, rules)

    def section(self, name: str, value: Fields | Appended | None, meant: object) -> Iterator[_Cut]:
        """Yield the replacement that sets a setting, appends to it, or removes it."""
        key, node = _entry(self._parent, name)
        if key is None or node is None:
            if value is not None:
                yield self._new(pair(name, meant))
        elif value is None:
            yield self._lines(key.start_mark.index, self._end(node))
        elif isinstance(value, Appended) and isinstance(node, yaml.SequenceNode) and not node.flow_style:
            yield self._add(node, value.items)
        else:
            yield key.start_mark.index, self._end(node), pair(name, meant)

    def _new(self, lines: str) -> _Cut:
        """Add a setting below the key of its group, or at the end of the text."""
        if self._above is not None:
            return self._below(self._above.end_mark.index, f"{self._newline}{self._indent}{lines}")
        end = len(self._text)
        start = self._newline if self._text and not self._text.endswith("\n") else ""
        return end, end, f"{start}{lines}{self._newline}"

    def _in_lines(
        self, key: yaml.Node, node: yaml.SequenceNode, edit: Edit, rules: Sequence[Any]
    ) -> Iterator[_Cut]:
        for position, fields in edit.changed.items():
            yield from self._change(node.value[position], fields, rules[position])
        for position in edit.removed:
            yield self._lines(node.value[position].start_mark.index, self._end(node.value[position]))
        if len(edit.removed) == len(rules):  # a key without a value would not be a list
            yield key.end_mark.index + 1, key.end_mark.index + 1, " []"
        if edit.added:
            yield self._add(node, edit.added)

    # --- positions -------------------------------------------------------------------------------------------

    def _end(self, node: yaml.Node) -> int:
        """Return the end of a node's last character. The parser's mark may follow later comments."""
        while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            node = last[1] if isinstance(last, tuple) else last
        start = node.start_mark.index
        return int(start + len(self._text[start : node.end_mark.index].rstrip()))

    def _line_start(self, position: int) -> int:
        return self._text.rfind("\n", 0, position) + 1

    def _next_line(self, position: int) -> int:
        return self._text.find("\n", position) + 1 or len(self._text)

    def _below(self, position: int, lines: str) -> _Cut:
        """Insert lines, each starting with a line break, below the line of a position."""
        following = self._next_line(position)
        end = following - len(self._newline) if self._text[:following].endswith("\n") else following
        return end, end, lines

    def _lines(self, start: int, end: int) -> _Cut:
        return self._line_start(start), self._next_line(end), ""

    # --- changing --------------------------------------------------------------------------------------------

    def _change(self, item: yaml.MappingNode, fields: Fields, meant: Mapping[str, object]) -> Iterator[_Cut]:
        if item.flow_style:
            yield from _anew(item, meant)
            return
        spans = {key.value: (key.start_mark.index, self._end(value)) for key, value in item.value}
        lists = {
            key.value: value
            for key, value in item.value
            if isinstance(value, yaml.SequenceNode) and value.value and not value.flow_style
        }
        for name in [key for key in fields if key in lists]:
            if isinstance(added := fields[name], Appended):
                yield self._add(lists[name], added.items)
                fields = {key: value for key, value in fields.items() if key != name}
        kept = [name for name in spans if fields.get(name, "") is not None]
        for name in fields.keys() & spans.keys():
            start, end = spans[name]
            yield (start, end, pair(name, meant[name])) if name in kept else self._lines(start, end)
        first, (second, last) = item.start_mark.index, (spans[kept[0]][0], spans[kept[-1]][1])
        if first != second:  # the first field is removed, but its dash stays
            yield self._line_start(second), second, self._text[self._line_start(first) : first]
        indent = self._newline + " " * item.start_mark.column
        new = [pair(name, value) for name, value in fields.items() if name not in spans and value is not None]
        yield self._below(last, "".join(indent + pair for pair in new))

    # --- adding ----------------------------------------------------------------------------------------------

    def _add(self, rules: yaml.SequenceNode, added: Sequence[Any]) -> _Cut:
        last = rules.value[-1]
        start = last.start_mark.index
        before = self._text[self._line_start(start) : start]
        return self._below(self._end(last), self._block(before, added, in_flow=getattr(last, "flow_style", False)))

    def _block(self, before: str, added: Sequence[Any], *, in_flow: bool = False) -> str:
        """Return rules as lines that each start with a line break. `before` is the indentation with the dash."""
        lines: list[str] = []
        for fields in added:
            in_one = in_flow or isinstance(fields, str)
            pairs = [scalar(fields)] if in_one else [pair(*field) for field in fields.items()]
            lines += [f"{' ' * len(before) if place else before}{pair}" for place, pair in enumerate(pairs)]
        return "".join(self._newline + line for line in lines)


def _entry(node: Any, name: str) -> tuple[Any, Any]:  # noqa: ANN401 - PyYAML's nodes have no common type
    """Return the key and the value of this name in a mapping, or None for both."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next(((key, value) for key, value in pairs if key.value == name), (None, None))


def _anew(node: yaml.CollectionNode, meant: object) -> Iterator[_Cut]:
    """Rewrite a list or mapping in brackets or braces, if it is on one line and so can't contain a comment."""
    if node.flow_style and node.start_mark.line == node.end_mark.line:
        yield node.start_mark.index, node.end_mark.index, scalar(meant)
