"""Decides which rules of a settings file to add, change and remove. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from clawker_fw.errors import RefusedError
from clawker_fw.model.json_types import OrNull
from clawker_fw.rules.destination import Destination, objection
from clawker_fw.rules.paths import PathRule, Paths, also, ordered
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import HOST_NAME, Protocol, Rule, RuleAction
from clawker_fw.rules.ruleset import RuleSet, ends
from clawker_fw.rules.until import rfc3339
from clawker_fw.settings.edit.splice import Appended, Edit, Fields, pair


class EditOutcome(StrEnum):
    """What becomes of a rule."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    NOT_FOUND = "not found"


@dataclass(frozen=True, slots=True)
class Written:
    """A rule as it is written, with its index in the settings file; None if it is in another file or a preset."""

    rule: Rule
    position: int | None


@dataclass(frozen=True, slots=True)
class EditResult:
    """What becomes of a rule."""

    outcome: EditOutcome
    rule: str
    """The rule in one line."""
    place: OrNull = ""
    """Where it is written after the edit, or was before it was removed; null if it was not found."""
    position: Annotated[int | None, Field(exclude=True)] = None
    """Its place among the rules of the settings file after the edit."""
    changes: tuple[str, ...] = ()
    """What of it is changed."""
    allowed_by: OrNull = ""
    """Another rule that still allows what a removed one did, or some of it; null if there is none."""


@dataclass(frozen=True, slots=True)
class Addition:
    """A rule to add, or to merge into one for the same destination, protocol, port and action.

    Merging changes only the `chosen` fields, keeps the note if `note` is None, and adds the paths.
    """

    rule: Rule
    note: str | None = None
    chosen: frozenset[str] = frozenset()

    def onto(self, old: Rule) -> Rule:
        """Return an existing rule with the addition merged into it."""
        return replace(
            old,
            allow_private=self.rule.allow_private if "allow_private" in self.chosen else old.allow_private,
            until=self.rule.until if "until" in self.chosen else old.until,
            note=old.note if self.note is None else self.note,
            paths=self._paths_onto(old),
        )

    def _paths_onto(self, old: Rule) -> Paths | None:
        if self.rule.paths is None or "path_rules" not in self.chosen:
            return old.paths
        if old.paths is None:
            raise RefusedError(
                "rule-narrowed",
                f"`{old}` allows every path of the host{old.located}, and would allow only those that are named.",
                hint="Nothing has been changed. If that is meant, write `path_rules` in that rule.",
            )
        return replace(
            old.paths,
            rules=ordered(
                [*old.paths.rules, *(more for rule in self.rule.paths.rules for more in also(old.paths, rule))]
            ),
            websocket=old.paths.websocket or self.rule.paths.websocket,
        )

    @property
    def fields(self) -> Fields:
        """The fields of the rule in the settings, without defaults."""
        rule = self.rule
        left_out = rule.protocol is Protocol.HTTPS and not rule.denies and not rule.at_machine
        protocol = None if left_out else rule.protocol
        usual = rule.protocol.default_port if rule.protocol and not rule.denies and not rule.at_machine else None
        usual_name = HOST_NAME if rule.at_machine else ""
        fields = {
            "dst": rule.host or str(rule.destination),
            "as": rule.destination.name if rule.host and rule.destination.name != usual_name else None,
            "proto": protocol and protocol.value,
            "port": rule.written_port if rule.written_port != usual else None,
            "action": rule.action.value if rule.denies else None,
            "allow_private": (rule.allow_private and not rule.at_machine) or None,
            "until": _time(rule.until),
            "force": bool(not rule.denies and (rule.reaches_engine or objection(rule.destination))) or None,
            **(_of_paths(rule.paths) if rule.paths else {}),
            "note": self.note or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Removal:
    """The rules to remove: all for a destination, or only those with this protocol, port and action."""

    destination: Destination
    protocol: Protocol | None = None
    port: int | str | None = None
    action: RuleAction | None = None

    def matches(self, rule: Rule) -> bool:
        """Whether a rule should be removed."""
        return (
            rule.destination == self.destination
            and self.protocol in {None, rule.protocol}
            and self.port in {None, rule.written_port}
            and self.action in {None, rule.action}
        )

    def __str__(self) -> str:
        """Return the selection in the form of a rule."""
        name = f"{self.destination}" + (f":{self.port}" if self.port else "")
        return " ".join(word for word in (self.action, self.protocol, name) if word)


def add(entries: Sequence[Written], additions: Iterable[Addition], now: float) -> tuple[Edit, list[EditResult]]:
    """Decide how to add rules. `now` is in seconds since 1970.

    Raises:
        RefusedError: when a rule of an included file or a preset would have to change, a rule would expire sooner
            or allow less, or an expired rule gets no new expiry.
    """
    by_identity: dict[object, list[Written]] = {}
    for entry in entries:
        by_identity.setdefault(identity(entry.rule), []).append(entry)
    end = sum(entry.position is not None for entry in entries)
    changed: dict[int, Fields] = {}
    added: dict[int, Addition] = {}
    """New entries by position: a second addition to the same rule is merged into its entry."""
    results = []
    for addition in additions:
        same = by_identity.get(identity(addition.rule), [])
        if not same:
            by_identity[identity(addition.rule)] = [Written(addition.rule, end)]
            results.append(EditResult(EditOutcome.ADDED, str(addition.rule), addition.rule.place, end))
            added[end] = addition
            end += 1
        if same:
            last = max((entry.rule for entry in same), key=ends)  # the one that is in force
            _require_lasting(last, addition.onto(last), now)
        for entry in same:
            after = addition.onto(entry.rule)
            fields = _changes(entry.rule, after)
            if fields and entry.position is None:
                raise _included(entry.rule)
            if entry.position in added:
                note = added[entry.position].note if addition.note is None else addition.note
                added[entry.position] = replace(added[entry.position], rule=after, note=note)
                by_identity[identity(addition.rule)] = [Written(after, entry.position)]
            elif fields and entry.position is not None:
                changed[entry.position] = fields
            if not fields:
                results.append(
                    EditResult(EditOutcome.UNCHANGED, str(entry.rule), entry.rule.place, entry.position)
                )
                continue
            phrases = tuple(_phrase(name, value) for name, value in fields.items())
            results.append(EditResult(EditOutcome.CHANGED, str(after), entry.rule.place, entry.position, phrases))
    return Edit(changed=changed, added=[addition.fields for addition in added.values()]), results


def resulting(rules: Iterable[Rule], addition: Addition) -> list[Rule]:
    """Return the rules after an addition that `add` accepts. Raise RefusedError if a rule would allow less."""
    same = identity(addition.rule)
    after = [addition.onto(rule) if identity(rule) == same else rule for rule in rules]
    return after if any(identity(rule) == same for rule in after) else [*after, addition.rule]


def remove(entries: Sequence[Written], removals: Iterable[Removal], now: float) -> tuple[Edit, list[EditResult]]:
    """Decide which rules to remove at a time. Raise RefusedError if one is in an included file or a preset."""
    removed: dict[int, int] = {}
    results: list[EditResult] = []
    for removal in removals:
        matching = [entry for entry in entries if removal.matches(entry.rule)]
        if not matching:
            results.append(EditResult(EditOutcome.NOT_FOUND, str(removal)))
        for entry in matching:
            if entry.position is None:
                raise _included(entry.rule)
            if entry.position not in removed:
                removed[entry.position] = len(results)
                results.append(EditResult(EditOutcome.REMOVED, str(entry.rule), entry.rule.place))
    if removed:
        after = Policy(RuleSet(tuple(entry.rule for entry in entries if entry.position not in removed)).at(now))
        for entry in (one for one in entries if one.position in removed):
            place = removed[entry.position or 0]
            names = () if entry.rule.denies else _within(after, entry.rule)
            decisions = (after.decide(name, *key) for name in names for key in entry.rule.keys)
            if other := next((one.rule for one in decisions if one.allowed), None):
                results[place] = replace(results[place], allowed_by=str(other))
    return Edit(removed=frozenset(removed)), results


def observing(before: datetime | None, until: datetime | None) -> tuple[Edit, list[EditResult]]:
    """Return the edit that has observing end at a time, or removes it."""
    outcome = (EditOutcome.CHANGED if before else EditOutcome.ADDED) if until else EditOutcome.REMOVED
    if before == until:
        outcome = EditOutcome.UNCHANGED if until else EditOutcome.NOT_FOUND
    ends = until or before
    line = f"observe until {rfc3339(ends.timestamp())}" if ends else "observe"
    return Edit(sections={"observe": {"until": until} if until else None}), [EditResult(outcome, line)]


def _within(after: Policy, removed: Rule) -> Iterator[str]:
    """Yield sample names of a removed rule, one per part that the other rules may decide differently.

    `*` stands for a label that no rule names.
    """
    yield removed.destination.name
    if not removed.destination.subtree:
        return
    below = f".{removed.destination.name}"
    yield f"*{below}"
    for rule in after.rules.rules:
        if not rule.denies and rule.destination.name.endswith(below):
            yield rule.destination.name
            yield f"*.{rule.destination.name}"


def placed(results: Sequence[EditResult], places: Sequence[str]) -> list[EditResult]:
    """Return results with the places of the rules after the edit."""
    return [
        result if result.position is None else replace(result, place=places[result.position]) for result in results
    ]


def identity(rule: Rule) -> object:
    """Return what identifies a rule to commands: with the same identity, they change it instead of adding one."""
    return rule.destination, rule.host, rule.protocol, rule.written_port, rule.action


def _require_lasting(old: Rule, new: Rule, now: float) -> None:
    """Check that an added rule is in force after the edit, and at least as long as before."""
    if new.until is not None and new.until <= now:
        raise RefusedError(
            "rule-has-ended",
            f"`{old}` has ended{old.located}, so the change would have no effect.",
            hint="Set a new end, for example `--until 8h`, or `--until never`.",
        )
    if new.until is not None and (old.until is None or new.until < old.until):
        until = rfc3339(new.until)
        before = "has no end" if old.until is None else f"ends at {rfc3339(old.until)}"
        raise RefusedError(
            "rule-shortened",
            f"`{replace(old, until=None)}` {before}, and would end at {until}{old.located}.",
            hint="Nothing has been changed. If it is to end then, set that in the file, or remove the rule first; "
            "otherwise leave out `--until`.",
        )


def _changes(old: Rule, new: Rule) -> Fields:
    fields: dict[str, object] = {}
    if old.allow_private != new.allow_private:
        fields["allow_private"] = new.allow_private
    if old.until != new.until:
        fields["until"] = _time(new.until)
    if new.note != old.note:
        fields["note"] = new.note
    if old.paths and new.paths:
        if more := tuple(_entry(rule) for rule in new.paths.rules if rule not in old.paths.rules):
            fields["path_rules"] = Appended(more)
        if _default(old.paths) != _default(new.paths):
            fields["path_default"] = _default(new.paths)
        if old.paths.websocket != new.paths.websocket:
            fields["websocket"] = True
    return fields


def _default(paths: Paths) -> str | None:
    """Return `path_default`, or None if the named paths imply it."""
    allows = bool(paths.repositories) or any(not rule.denies for rule in paths.rules)
    return ("allow" if paths.others else "deny") if paths.others is allows else None


def _of_paths(paths: Paths) -> Fields:
    """Return the fields for paths in the settings, without defaults."""
    return {
        "inspect": None if paths.rules or paths.repositories else True,
        "path_rules": Appended(tuple(map(_entry, paths.rules))) if paths.rules else None,
        "path_default": _default(paths),
        "git": {repository.name: repository.access.value for repository in paths.repositories} or None,
        "lfs": paths.lfs or None,
        "websocket": paths.websocket or None,
        "insecure_skip_tls_verify": True if not paths.verify else None,
    }


def _entry(rule: PathRule) -> Fields:
    methods: Fields = {"methods": list(rule.methods)} if rule.methods else {}
    return {"path": rule.written, **methods, **({"action": "deny"} if rule.denies else {})}


def _phrase(name: str, value: object) -> str:
    if isinstance(value, Appended):
        return f"{name}: with {', '.join(str(item['path']) for item in value.items)}"
    return pair(name, "none" if value in {None, ""} else value)


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _included(rule: Rule) -> RefusedError:
    if rule.preset:
        return RefusedError(
            "rule-of-preset",
            f"`{rule}` is of the preset {rule.preset}, and only the settings file's own rules are edited"
            f"{rule.located}.",
            hint=f"A rule of your own for {rule.destination} replaces it, and `clawker-fw rules deny` denies it.",
        )
    return RefusedError(
        "rule-included",
        f"`{rule}` is not among the rules that this command edits. It is written in {rule.place}.",
        hint="Change it there: it is in an included file, or above the groups, where it counts for all of them.",
    )
