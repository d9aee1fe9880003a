"""Reads the settings file and the files that it includes, and joins them to one document.

`include: [team.yaml]` adds the rules of another file, relative to the settings file: to all stacks, or to one
group if it is written there. An included file is a regular file that has only rules.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clawker_fw.errors import SettingsError
from clawker_fw.settings.document import Location, SettingsDocument, document_of
from clawker_fw.settings.files import read_text, resolved
from clawker_fw.settings.groups import group_names, of_stack, own_location, own_values

KEY = "include"
_RULES = "rules"


@dataclass(frozen=True, slots=True)
class Source:
    """A settings file and its text.

    `origins` are the places of a stack's own rules if the text is not written yet. `names` are those under which a
    file is included; without any, as in records of earlier releases, it is included above the groups.
    """

    path: Path
    text: str
    origins: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()


def sources(path: Path) -> tuple[Source, ...]:
    """Read a settings file, then its included files, each once. Raise SettingsError if one can't be read."""
    here, text = resolved(path), read_text(path)
    document = document_of(text, path)
    sources = {here: Source(path, text)}
    every = [included(document, group) for group in (None, *group_names(document))]
    for name, place in {name: place for places in reversed(every) for name, place in places.items()}.items():
        try:
            beside = path.parent / name
            here = resolved(beside)
            source = sources.get(here) or Source(beside, read_text(beside, regular=True))
            sources[here] = replace(source, names=source.names | {name})
        except SettingsError as error:
            raise SettingsError(
                "include-unreadable",
                f"{place}: an included file can't be used: {error.message}",
                hint="The path of an included file is relative to the settings file.",
            ) from error
    return tuple(sources.values())


def included(document: SettingsDocument, group: str | None = None) -> Mapping[str, str]:
    """Return the files that the top level or a group itself includes, as written, with their places.

    Raises:
        SettingsError: if `include` is invalid.
    """
    at = own_location(group)
    names = own_values(document.values, at).get(KEY, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(
            "settings-invalid",
            f"{document.place((*at, KEY))}: `{KEY}` must be a list of files.",
            hint=f"Write it as `{KEY}: [team.yaml]`.",
        )
    return {name: document.place((*at, KEY, position)) for position, name in enumerate(names)}


def joined(read: Sequence[Source], group: str | None = None) -> SettingsDocument:
    """Return a stack's settings in the first file, with the rules of the files it includes, each with its place.

    Raises:
        SettingsError: when a file is not YAML, or an included file has other settings, or no rules.
    """
    first = of_stack(_document(read[0], own_location(group)), group)
    for source in read[1:]:
        _require_rules_alone(document_of(source.text, source.path))
    names = set(included(first))
    others = [source for source in read[1:] if names & source.names or not (group or source.names)]
    documents = [first, *(document_of(other.text, other.path) for other in others)]
    if not others:
        return first
    rules: list[Any] = []
    places = {location: place for location, place in first.places.items() if location[:1] != (_RULES,)}
    for document in documents:
        own = document.values.get(_RULES, [])
        if not isinstance(own, list):
            raise SettingsError("settings-invalid", f"{document.place((_RULES,))}: `{_RULES}` must be a list.")
        places |= dict(_moved(document, len(rules)))
        rules += own
    if given := next(filter(None, (document.given_at((_RULES,)) for document in documents)), ""):
        places |= {(_RULES,): given}
    return replace(first, values={**first.values, _RULES: rules}, places=places)


def _document(source: Source, own: Location) -> SettingsDocument:
    """Return the document of a settings file. Unwritten rules at `own` have their origins as places."""
    document = document_of(source.text, source.path)
    if not source.origins:
        return document
    rules = (*own, _RULES)
    places = {location: place for location, place in document.places.items() if location[: len(rules)] != rules}
    return replace(document, places=places | {(*rules, at): place for at, place in enumerate(source.origins)})


def _moved(document: SettingsDocument, by: int) -> Iterator[tuple[Location, str]]:
    """Yield the places of a document's rules, shifted by its offset in the joined list."""
    for location, place in document.places.items():
        if location[:1] == (_RULES,) and len(location) > 1:
            yield (_RULES, int(location[1]) + by, *location[2:]), place


def _require_rules_alone(document: SettingsDocument) -> None:
    other = next((key for key in document.values if key != _RULES), None)
    if other is not None:
        raise SettingsError(
            "settings-invalid",
            f"{document.place((other,))}: `{other}` can't be set in an included file, only `rules`.",
            hint="Move it to the settings file.",
        )
    if not document.values:
        raise SettingsError(
            "settings-invalid",
            f"{document.source} is included, but has no rules.",
            hint="Write `rules: []` if it is meant to have none.",
        )
