"""A YAML document that remembers the line of each value.

YAML 1.1, as PyYAML reads it. Refuses what hides errors: duplicate keys, aliases, a top level that is not a
mapping, several documents, and values nested deeper than any setting.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from clawker_fw.errors import SettingsError
from clawker_fw.settings.yaml_mistakes import KEPT, lacks_space, not_yaml

Location = tuple[str | int, ...]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader, if PyYAML was built with it: ten times as fast."""

_TEXT = "tag:yaml.org,2002:str"
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)?(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?")
"""A number that YAML 1.1 reads as people do, unlike `0443` (octal, 291) and `1:30` (base 60, 90)."""

_DEEPEST = 20
_NEVER_BLANK = frozenset({"rules", "never", "always", "groups", "observe"})
"""Settings whose entries can't have a blank value, because a field's default may allow more than intended."""
_NEVER_WITHOUT = frozenset({"observe"})
"""Settings that can't be blank themselves."""
_NOT_A_VALUE = (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError)
"""PyYAML raises these for a scalar that does not fit its tag, like `!!int ""`, or a number that is too large."""


@dataclass(frozen=True)
class SettingsDocument:
    """Plain values, the place (`file, line n`) of each location in them, and the source's name."""

    values: dict[str, Any]
    places: Mapping[Location, str]
    source: str

    def place(self, location: Location) -> str:
        """Return the place of a location, or of the nearest enclosing one that has a place."""
        while (place := self.places.get(location)) is None and location:
            location = location[:-1]
        return self.source if place is None else place

    def given_at(self, location: Location) -> str:
        """Return the place of exactly this location, or "" if the document does not have it."""
        return self.places.get(location, "")

    def with_text(self, location: tuple[str, ...], text: str, place: str) -> "SettingsDocument":
        """Return a copy with one value replaced by parsed YAML text from `place`."""
        value, _ = parse(text, place, location)
        for part in reversed(location):
            value = {part: value}
        kept = {other: at for other, at in self.places.items() if other[: len(location)] != location}
        return replace(self, values=merged(self.values, value), places={**kept, location: place})


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of both mappings, those of `over` in place of the others. Sections are merged."""
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        both[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def document_of(text: str, source: Path | str) -> SettingsDocument:
    """Parse a settings file; empty text is an empty mapping. Raise SettingsError unless it is a YAML mapping."""
    return _document(text, str(source))


@functools.lru_cache(maxsize=8)  # a command reads its settings several times, and many rules parse slowly
def _document(text: str, source: str) -> SettingsDocument:
    values, places = parse(text, source)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        hint = "Write a space after each colon. " if isinstance(values, str) and lacks_space(values) else ""
        sentence = f"{places[()]}: expected `setting: value` pairs."
        raise SettingsError("settings-invalid", sentence, hint=f"{hint}{KEPT}")
    return SettingsDocument(values, places, source)


def parse(text: str, source: str, at: Location = ()) -> tuple[Any, dict[Location, str]]:
    """Parse YAML text at a location of a document into plain values, and the place of every value.

    Raises:
        SettingsError: when it is not YAML, has a duplicate key, or a blank value that could allow something.
    """
    node = _composed(text, source)
    places: dict[Location, str] = {}
    return (None if node is None else _Reader(source, places, at).document(node)), places


def entries(text: str, source: str) -> Sequence[tuple[yaml.Node, yaml.Node]]:
    """Return a settings file's top-level keys and values, unchecked. Raise SettingsError if it is not YAML."""
    node = _composed(text, source)
    return node.value if isinstance(node, yaml.MappingNode) else ()


@functools.lru_cache(maxsize=2)  # a command reads the project first, then the rest
def _composed(text: str, source: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        raise not_yaml(text, source, error) from error
    except (yaml.reader.ReaderError, UnicodeEncodeError) as error:  # libyaml raises the second one
        at = error.start if isinstance(error, UnicodeEncodeError) else text.find(chr(error.character))
        number = text.count("\n", 0, at) + 1
        what = f"it has U+{ord(text[at]):04X}, which text can't contain"
        raise SettingsError("settings-invalid", f"{source}, line {number} is not YAML: {what}.") from error


class _Reader:
    """Turns PyYAML's nodes into values. Ignores a key without a value unless it is in `_NEVER_BLANK`."""

    def __init__(self, source: str, places: dict[Location, str], at: Location) -> None:
        self._source = source
        self._base = at
        self._places = places
        self._scalars = yaml.constructor.SafeConstructor()
        self._seen: set[int] = set()

    def document(self, node: yaml.Node) -> Any:  # noqa: ANN401 - YAML holds anything
        self._places[()] = self._place(node)
        return self._value(node, ())

    def _place(self, node: yaml.Node) -> str:
        return f"{self._source}, line {node.start_mark.line + 1}"

    def _value(self, node: yaml.Node, location: Location) -> Any:  # noqa: ANN401 - YAML holds anything
        if len(location) > _DEEPEST:
            raise SettingsError("settings-invalid", f"{self._place(node)}: this value is nested too deeply.")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return self._list(node, location)
        return node.value if node.tag == _TEXT else self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:  # noqa: ANN401 - a number, boolean, time, or null
        if node.tag in _NUMBERS and not _DECIMAL.fullmatch(node.value):
            raise SettingsError(
                "settings-invalid",
                f"{self._place(node)}: {node.value} is not a plain number: YAML would read another one.",
                hint="Write it in decimal, without zeros before it and without colons, or put text in quotes.",
            )
        try:
            return self._scalars.construct_object(node)
        except _NOT_A_VALUE as error:
            raise SettingsError(
                "settings-invalid",
                f"{self._place(node)}: {node.value!r} is not a value that YAML settings can have.",
                hint="Put text in quotes, and remove YAML tags (`!…`).",
            ) from error

    def _require_new(self, node: yaml.CollectionNode) -> None:
        """Refuse aliases, which repeat a node: a few of them can expand to millions of values."""
        if id(node) in self._seen:
            raise SettingsError(
                "settings-invalid",
                f"{self._place(node)}: this value is used through a YAML alias (`*name`), "
                "and aliases are not supported.",
                hint="Write the value out where it is used.",
            )
        self._seen.add(id(node))

    def _list(self, node: yaml.SequenceNode, location: Location) -> list[Any]:
        self._require_new(node)
        values: list[Any] = []
        for index, item in enumerate(node.value):
            at = (*location, index)
            self._places[at] = self._place(item)
            values.append(self._value(item, at))
        return values

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        self._require_new(node)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            at, place = (*location, key), self._place(key_node)
            if at in self._places:
                first = self._places[at].rpartition(" ")[2]
                raise SettingsError(
                    "settings-invalid",
                    f"{place}: `{key}` appears twice, first in line {first}.",
                    hint=f"Remove one of the two, or begin another entry with a dash. {KEPT}",
                )
            self._places[at] = place
            value = self._value(value_node, at)
            if value is not None:
                values[key] = value
            elif (*self._base, *at)[0] in (_NEVER_BLANK if location else _NEVER_WITHOUT):
                raise SettingsError(
                    "settings-invalid",
                    f"{place}: `{key}` has no value.",
                    hint="Write its value, or remove the key. With a blank, a rule could allow more than meant.",
                )
        return values
