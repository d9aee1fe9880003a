"""Included files: rules that several settings files share.

`include: [team.yaml]` adds the rules of another file, whose path is relative to the file that names it. An
included file has rules, and may include others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clawker_fw.document import Document, document_of, read_text
from clawker_fw.errors import SettingsError

KEY = "include"
_KEYS = (KEY, "rules")


@dataclass(frozen=True, slots=True)
class Source:
    """A file with settings, and its text."""

    path: Path
    text: str


def sources(path: Path) -> tuple[Source, ...]:
    """Read a settings file and all files that it includes, itself first. Each is read once.

    Raises:
        SettingsError: when one can't be read, or includes itself, perhaps through others.
    """
    found: dict[Path, Source] = {}
    _collect(path, (), "", found)
    return tuple(found.values())


def _collect(path: Path, above: tuple[Path, ...], place: str, found: dict[Path, Source]) -> None:
    here = path.resolve()
    if here in above:
        chain = " -> ".join(str(each) for each in (*above[above.index(here) :], here))
        raise SettingsError(
            "include-cycle", f"{place}: {path} includes itself: {chain}.", hint="Remove one of these includes."
        )
    if here in found:
        return
    try:
        source = Source(path, read_text(path))
    except SettingsError as error:
        if not place:
            raise
        raise SettingsError(
            "include-unreadable",
            f"{place}: an included file can't be used: {error.message}",
            hint="The path of an included file is relative to the file that includes it.",
        ) from error
    found[here] = source
    if KEY in source.text:  # otherwise it need not be parsed to know that there is none
        document = document_of(source.text, path)
        for position, name in enumerate(_included(document)):
            _collect(path.parent / name, (*above, here), document.place((KEY, position)), found)


def _included(document: Document) -> Sequence[str]:
    names = document.values.get(KEY, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(
            "settings-invalid",
            f"{document.place((KEY,))}: `{KEY}` must be a list of files.",
            hint=f"Write it as `{KEY}: [team.yaml]`.",
        )
    return names


def joined(read: Sequence[Source]) -> Document:
    """Return the first file's settings with the rules of all files, each with its own place.

    Raises:
        SettingsError: when a file is not YAML, or an included file has other settings, or no rules.
    """
    first, *others = (document_of(source.text, source.path) for source in read)
    if not others:
        return first
    for each in others:
        _require_rules_alone(each)
    rules: list[Any] = []
    places = {location: place for location, place in first.places.items() if location[:1] != ("rules",)}
    for each in (first, *others):
        own = each.values.get("rules", [])
        if not isinstance(own, list):
            raise SettingsError("settings-invalid", f"{each.place(('rules',))}: `rules` must be a list.")
        places |= dict(_moved(each, len(rules)))
        rules += own
    return replace(first, values={**first.values, "rules": rules}, places=places)


def _moved(document: Document, by: int) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the places of a document's rules, each of which is `by` positions further in the joined list."""
    for location, place in document.places.items():
        if location[:1] == ("rules",) and len(location) > 1:
            yield ("rules", int(location[1]) + by, *location[2:]), place


def _require_rules_alone(document: Document) -> None:
    values: Mapping[str, Any] = document.values
    other = next((key for key in values if key not in _KEYS), None)
    if other is not None:
        raise SettingsError(
            "settings-invalid",
            f"{document.place((other,))}: `{other}` can't be set in an included file, only `rules`.",
            hint="Move it to the settings file.",
        )
    if not values:
        raise SettingsError(
            "settings-invalid",
            f"{document.source} is included, but has no rules.",
            hint="Write `rules: []` if it is meant to have none.",
        )
