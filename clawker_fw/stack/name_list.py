"""CoreDNS's list of names, by which the plugin `go/internal/policy` decides, and the record of the rules.

`observe` reads the list before settings and rules, so this module does not import their modules.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from clawker_fw.model.files import Files
from clawker_fw.rules.own_page import PAGE
from clawker_fw.stack import container
from clawker_fw.stack.files import canonical, read_record
from clawker_fw.stack.resources import Resource

if TYPE_CHECKING:
    from clawker_fw.rules.policy import Policy, RuleScope
    from clawker_fw.stack.topology import Addressing

TTL = 1
"""The TTL of answers and refusals, in seconds. It limits how long agents use a replaced Envoy."""

RESOURCE = Resource("policy", "policy/names.json", hashed=True)

POLICY = container.HOT + RESOURCE.path

RECORDED = Resource("rules", "rules/rules.json")
"""The rules that were last committed. Only clawker-fw reads them, to show which ones a change adds and removes."""

RULES = container.HOT + RECORDED.path

_ENVOY, _VIRTUAL, _DENY, _NO_RULE = "envoy", "virtual", "deny", "no-rule"


def content(policy: "Policy", addresses: "Addressing", envoy_slot: int) -> bytes:
    """Return the list for a policy. Entries name addresses, so another slot of Envoy changes two values."""
    numbers = dict(addresses.numbers.names)
    served = policy.allowed_at(numbers)
    bases = {_ENVOY: str(addresses.envoy(envoy_slot))}
    if served:
        bases[_VIRTUAL] = str(addresses.virtual(envoy_slot, 0))
    names: dict[str, dict[str, str | int]] = {}
    for point in policy.points:
        names[point.name] = _decision("at", point.at)
        if point.below.own or point.below.denies:
            names[point.name] |= _decision("below", point.below)
    for name in served:
        entry = names.setdefault(name, _decision("at", policy.at(name)))
        entry |= {"at": _VIRTUAL, "at_number": numbers[name]}
    _add_expired(policy, names)
    observed = _observed(policy, names)
    names[PAGE] = {**names.get(PAGE, {}), "at": _ENVOY}  # whatever the rules say
    return canonical({"ttl": TTL, "addresses": bases, "names": names, **observed})


def _add_expired(policy: "Policy", names: dict[str, dict[str, str | int]]) -> None:
    """Add names of expired rules where nothing else decides, so that agents get this reason."""
    for rule in (rule for rule in policy.rules.ended if not rule.denies):
        name = rule.destination.name
        for what in ("below", "at") if rule.destination.subtree else ("at",):
            if not _decided(names, name, what):
                names.setdefault(name, {}).update({what: _ENVOY, f"{what}_until": rule.until or 0})


def _observed(policy: "Policy", names: dict[str, dict[str, str | int]]) -> dict[str, int]:
    """Return until when other names are answered too, if so, and add the names for which that does not hold."""
    if policy.rules.observing is None or not policy.observed:
        return {}
    for pattern in sorted(policy.unobserved, key=len):
        name = pattern.removeprefix("*.")
        what = "at" if pattern == name else "below"
        if not _decided(names, name, what):
            names.setdefault(name, {})[what] = _NO_RULE
    return {"observe_until": policy.rules.observing.until}


def _decided(names: dict[str, dict[str, str | int]], name: str, what: str) -> bool:
    labels = name.split(".")
    above = (".".join(labels[start:]) for start in range(len(labels)))
    return what in names.get(name, {}) or any("below" in names[parent] for parent in above if parent in names)


def _decision(what: str, scope: "RuleScope") -> dict[str, str | int]:
    """Return an address or a denial, with the address's expiry in seconds since 1970."""
    if not scope.resolves:
        return {what: _DENY}
    until = scope.until
    return {what: _ENVOY} if until is None else {what: _ENVOY, f"{what}_until": until}


def answers(files: Files, now: float) -> Callable[[str], bool]:
    """Return whether CoreDNS answers a name at a time, like `Decide` in `go/internal/policy/handler.go`."""
    names: Mapping[str, Mapping[str, str | int]] = {}
    with suppress(KeyError, TypeError, ValueError):
        names = dict(read_record(files[POLICY].content)["names"])

    def answered(name: str) -> bool:
        labels = name.lower().split(".")
        above = [names.get(".".join(labels[start:]), {}) for start in range(len(labels))]
        places = [("at", above[0]), *(("below", parent) for parent in above)]
        what, entry = next(((what, entry) for what, entry in places if what in entry), ("", {}))
        return bool(what) and entry[what] != _DENY and now < float(entry.get(f"{what}_until", math.inf))

    return answered


def envoy_address(files: Files) -> str:
    """Return Envoy's address from CoreDNS's files, or an empty string if they are unreadable."""
    try:
        return str(read_record(files[POLICY].content)["addresses"][_ENVOY])
    except (KeyError, TypeError, ValueError):
        return ""


def record(lines: Sequence[str]) -> bytes:
    """Return the record of the rules: one line of text each, in canonical order."""
    return json.dumps(lines, indent=0).encode()


def recorded(files: Files) -> tuple[str, ...] | None:
    """Return the rules in CoreDNS's files, or None if the record is missing or unreadable."""
    try:
        return TypeAdapter(tuple[str, ...]).validate_json(files[RULES].content, strict=True)
    except (KeyError, ValueError):
        return None
