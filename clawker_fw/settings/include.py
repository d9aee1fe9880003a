"""Joining what settings are read from to one document: the settings file, included files, and bundles.

`include: [team.yaml]` adds the rules of another file, whose path is relative to the file that names it. An
included file is a regular one, has rules, and may include others. `include: [oci://…]` adds those of a bundle, and
`settings: oci://…` takes everything from one, but for what is local.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clawker_fw.errors import SettingsError
from clawker_fw.settings.bundles.reference import PREFIX
from clawker_fw.settings.document import SettingsDocument, document_of
from clawker_fw.settings.outline import INCLUDE as KEY
from clawker_fw.settings.outline import KEYS, SETTINGS, included
from clawker_fw.settings.sources import Source

_RULES = "rules"
_KEYS = (KEY, _RULES)
_JOINED = (_RULES, "never", "always")
"""Lists of which those of all documents count."""

_CENTRAL = (_RULES, "presets")
"""What a file with `settings` leaves to the bundle."""

_LOCAL = (
    (SETTINGS,),
    (KEYS,),
    (KEY,),
    ("project",),
    ("images",),
    ("otel", "certs_dir"),
    ("inspection", "ca_file"),
)
"""What no bundle may say: which bundles, keys and files of the host are used, and what runs there."""


def joined(read: Sequence[Source]) -> SettingsDocument:
    """Return the first file's settings with the rules of all files and bundles, each with its own place.

    Raises:
        SettingsError: when a file is not YAML or has an include that was not followed, or an included file has
            other settings, or no rules, or a bundle has what only the host may say.
    """
    first, *others = (_followed(source) for source in read)
    if not others:
        return first
    whole = [each for source, each in zip(read[1:], others, strict=True) if source.whole]
    for each in others:
        if each not in whole:
            _require_rules_alone(each)
    for each in whole:
        require_central(each)
        _require_delegating(first)
        overlaid = each.overlaid(first)
        first, others = replace(overlaid, source=first.source), [each, *(one for one in others if one is not each)]
    return _with_lists(first, [_followed(read[0]), *others])


def _with_lists(document: SettingsDocument, all_of: Sequence[SettingsDocument]) -> SettingsDocument:
    """Return a document with what all documents have in the lists that are joined."""
    values = dict(document.values)
    places = {location: place for location, place in document.places.items() if location[:1] not in _TOPS}
    for key in _JOINED:
        entries: list[Any] = []
        for each in all_of:
            own = each.values.get(key, [])
            if not isinstance(own, list):
                raise SettingsError("settings-invalid", f"{each.place((key,))}: `{key}` must be a list.")
            places |= dict(_moved(each, key, len(entries)))
            entries += own
        if entries or any(key in each.values for each in all_of):
            values[key] = entries
            given = next((place for each in all_of if (place := each.given_at((key,)))), "")
            places |= {(key,): given} if given else {}
    return replace(document, values=values, places=places)


_TOPS = tuple((key,) for key in _JOINED)


def _followed(source: Source) -> SettingsDocument:
    """Return the document of a file, all of whose includes have been followed."""
    document = document_of(source.text, source.name)
    if source.bundle:
        return document
    if set(included(document)) != set(source.includes):
        raise SettingsError(
            "settings-invalid",
            f"{document.place((KEY,))}: `{KEY}` names files that have not been read.",
            hint="If the file has just been changed, run the command again.",
        )
    if not source.origins:
        return document
    places = {location: place for location, place in document.places.items() if location[:1] != (_RULES,)}
    return replace(document, places=places | {(_RULES, at): place for at, place in enumerate(source.origins)})


def _moved(document: SettingsDocument, key: str, by: int) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the places of a list's entries, each of which is `by` positions further in the joined list."""
    for location, place in document.places.items():
        if location[:1] == (key,) and len(location) > 1:
            yield (key, int(location[1]) + by, *location[2:]), place


def require_central(document: SettingsDocument) -> None:
    """Require that the settings in a bundle say nothing that only the host may say.

    Raises:
        SettingsError: otherwise.
    """
    for location in _LOCAL:
        if place := document.given_at(location):
            raise SettingsError(
                "bundle-oversteps",
                f"{place}: `{'.'.join(location)}` can't be set in a bundle.",
                hint="What files, bundles, keys and images a host uses is said in its own settings file.",
            )


def _require_delegating(document: SettingsDocument) -> None:
    """Require that a file with `settings` leaves to the bundle what comes from there."""
    for key in _CENTRAL:
        if place := document.given_at((key,)):
            raise SettingsError(
                "settings-invalid",
                f"{place}: `{key}` can't be set beside `{SETTINGS}`, whose bundle has them.",
                hint=f"To have rules of your own as well, name the bundle in `{KEY}` and not in `{SETTINGS}`.",
            )


def _require_rules_alone(document: SettingsDocument) -> None:
    values: Mapping[str, Any] = document.values
    other = next((key for key in values if key not in _KEYS), None)
    if KEY in values and document.source.startswith(PREFIX):
        require_central(document)
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
