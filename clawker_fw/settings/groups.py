"""The settings of a group of agents: its own, and the inherited ones of the top level.

Each group is a stack, called `PROJECT-GROUP`. A group's value replaces the inherited one. Rules and presets are
added to the inherited ones unless the group has `inherit: false`; promises are always added.

Two settings are never inherited: `network`, because two stacks can't share a subnet, and `observe`, which opens
only the stack that it is written for.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clawker_fw.errors import SettingsError
from clawker_fw.settings.document import Location, SettingsDocument, merged

GROUPS = "groups"
INHERIT = "inherit"

_INHERITED = ("rules", "presets", "include")
"""Lists that a group adds to those above, unless it does not inherit."""

_LISTS = (*_INHERITED, "never", "always")
_OF_TOP_LEVEL = frozenset({GROUPS, "network", "observe"})


def group_names(document: SettingsDocument) -> tuple[str, ...]:
    """Return the groups of a settings file in their order. Other errors in them are found later."""
    groups = document.values.get(GROUPS, {})
    return tuple(map(str, groups)) if isinstance(groups, dict) else ()


def own_location(group: str | None) -> Location:
    """Return the location of a group's own settings in the document, or the top level without a group."""
    return (GROUPS, group) if group else ()


def require_group(group: str, names: Sequence[str], source: str) -> None:
    """Require that a group is among the known ones of a settings file.

    Raises:
        SettingsError: if it is not.
    """
    if group in names:
        return
    near = difflib.get_close_matches(group, names, n=1)
    hint = f"Its groups are: {', '.join(names)}." if names else "Add it below `groups:`, or leave out `--group`."
    raise SettingsError(
        "group-unknown",
        f"{source} has no group {group}.",
        hint=f"Did you mean `{near[0]}`?" if near else hint,
    )


def of_stack(document: SettingsDocument, group: str | None) -> SettingsDocument:
    """Return the settings of the top level, or those of a group in the form of a file without groups.

    A group's own rules come before inherited ones. The groups must have been validated.
    """
    if group is None:
        return document
    own: Mapping[str, Any] = document.values[GROUPS][group]
    above = {key: value for key, value in document.values.items() if key not in _OF_TOP_LEVEL}
    if not own.get(INHERIT, True):
        above = {key: value for key, value in above.items() if key not in _INHERITED}
    values = merged(above, {key: value for key, value in own.items() if key != INHERIT})
    values |= {key: [*own.get(key, ()), *above.get(key, ())] for key in _LISTS if key in values}
    lengths = {key: len(own.get(key, ())) for key in _LISTS}
    places = {_shifted(at, lengths): place for at, place in document.places.items() if not at or at[0] in above}
    prefix = own_location(group)
    own_places = {at[len(prefix) :]: place for at, place in document.places.items() if at[: len(prefix)] == prefix}
    return replace(document, values=values, places=places | own_places)


def _shifted(at: Location, lengths: Mapping[str, int]) -> Location:
    """Return the location of an inherited value, which follows the group's own ones in a list."""
    match at:
        case (str(key), int(position), *rest) if key in lengths:
            return (key, position + lengths[key], *rest)
        case _:
            return at


def own_values(values: Mapping[str, Any], location: Sequence[str | int]) -> Mapping[str, Any]:
    """Return the settings at the location of a group or of the top level, or none if they are no mapping."""
    for part in location:
        inner = values.get(str(part))
        values = inner if isinstance(inner, dict) else {}
    return values
