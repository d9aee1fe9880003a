"""Reads a rules file of clawker, entry by entry.

Each entry is taken over, perhaps with a difference that is named, or left out with the reason. What an entry
restricts is never dropped: an entry whose restriction can't be kept is left out. Pure.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from clawker_fw.rules.rule import Rule, RuleAction
from clawker_fw.rules.schema import INSPECTION_FIELDS, RuleEntry, mistake

_KEY = "rules"
_FIELDS = ("dst", "proto", "port", "action")
_LATER_PROTOCOLS = ("opaque",)
_NOT_DENIED = "what it denied may be allowed by another rule"

# There, the first entry of `path_rules` decides with whose path the path of a request begins, and what none is for
# is denied. So a path that is allowed can be kept, and is for less here. One that is denied would be for less as
# well, and more would be allowed.
_PATHS, _DEFAULT = "path_rules", "path_default"
_FIELDS_OF_PATHS = ("path", "methods", "action")
_OTHER_PATHS = "may match other requests there; write it in the settings"


@dataclass(frozen=True, slots=True)
class Imported:
    """What becomes of one entry, which is shown by its name.

    `rule` is None when it is left out. `remarks` name the differences, or why it is left out.
    """

    place: str
    entry: str
    rule: Rule | None
    remarks: tuple[str, ...] = ()


def import_rules(values: Mapping[str, Any], place: Callable[[tuple[str | int, ...]], str]) -> list[Imported]:
    """Return what becomes of everything in a rules file. `place` says where a location of it is written.

    Raises:
        ValueError: when it has no list of rules.
    """
    entries = values.get(_KEY)
    if not isinstance(entries, list):
        raise ValueError("it has no `rules`, or they are not a list")  # noqa: TRY004 - the content is wrong
    found = [_imported(place((_KEY, position)), entry) for position, entry in enumerate(entries)]
    others = (name for name in values if name != _KEY)
    return [*found, *(Imported(place((name,)), name, None, ("it is not a rule",)) for name in others)]


def _imported(place: str, entry: object) -> Imported:
    if not isinstance(entry, Mapping):
        return Imported(place, str(entry), None, ("it is not a mapping",))
    fields, differences = _translated(entry)
    reasons = list(_reasons(entry))
    if not reasons:
        _with_paths(entry, fields, differences)
        try:
            return Imported(place, "", RuleEntry.model_validate(fields).rule(place), tuple(differences))
        except ValidationError as error:
            reasons = [mistake(details) for details in error.errors(include_url=False)]
    if fields.get("action") == RuleAction.DENY:
        reasons.append(_NOT_DENIED)
    return Imported(place, str(entry.get("dst", "a rule without `dst`")), None, tuple(reasons))


def _reasons(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield why an entry can't be taken over. A field that is empty or false restricts nothing."""
    for name, value in entry.items():
        if name == _PATHS and value:
            yield from _reasons_of_paths(value)
        elif name in INSPECTION_FIELDS:
            if value and not (name == _DEFAULT and entry.get(_PATHS) and _word(value) == RuleAction.DENY):
                yield f"`{name}` {_OTHER_PATHS}"
        elif name not in _FIELDS:
            yield f"`{name}` is not known, and its meaning would be lost"
    protocol = _word(entry.get("proto"))
    if protocol in _LATER_PROTOCOLS:
        yield f"`proto: {protocol}` is not supported yet"


def _reasons_of_paths(rules: object) -> Iterator[str]:
    if not isinstance(rules, list) or not all(isinstance(each, Mapping) for each in rules):
        yield f"`{_PATHS}` is not a list of mappings"
        return
    for each in rules:
        if unknown := sorted(str(name) for name in each.keys() - {*_FIELDS_OF_PATHS}):
            yield f"`{unknown[0]}` in `{_PATHS}` is not known, and its meaning would be lost"
        if not isinstance(each.get("path"), str) or not each["path"].startswith("/"):
            yield f"`{_PATHS}` has an entry without a `path` that begins with `/`"
        elif _word(each.get("action")) != RuleAction.ALLOW:
            path = each["path"]
            yield f"`{_PATHS}` denies `{path}`, there also what only begins like it; write it in the settings"


def _translated(entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of our rule, and how it differs from the entry."""
    fields = {name: _word(entry[name]) for name in _FIELDS if name in entry and entry[name] != ""}
    differences = []
    destination = fields.get("dst")
    if isinstance(destination, str) and destination.startswith("*."):
        fields["dst"] = destination[1:]
        differences.append(
            f"`{destination}` is now `{fields['dst']}`, which is for {destination[2:]} itself as well"
        )
    if fields.get("port") == 0:
        del fields["port"]
    if fields.get("action") == RuleAction.DENY:
        missing = [word for name, word in (("proto", "protocol"), ("port", "port")) if name not in fields]
        differences += [f"without a {word}, it denies every {word}" for word in missing]
    return fields, differences


def _with_paths(entry: Mapping[str, Any], fields: dict[str, Any], differences: list[str]) -> None:
    """Add what an entry says about paths, and how that differs."""
    rules = entry.get(_PATHS)
    if not rules:
        return
    kept = ("path", "methods")
    fields[_PATHS] = [{name: each[name] for name in kept if each.get(name)} for each in rules]
    fields[_DEFAULT] = RuleAction.DENY.value
    path = next((each["path"] for each in fields[_PATHS] if each["path"] != "/"), "")
    if path:
        differences.append(f"`{path}` is now for what is below it, and not for `{path}x`")
    if _word(entry.get("proto")) != "wss":
        differences.append("WebSockets need `proto: wss`")


def _word(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value
