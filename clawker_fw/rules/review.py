"""Rules that decide nothing, or less than they seem to: valid, and probably a mistake."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.paths import ANY_METHOD, PathRule, Paths
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.spellings import bounds

_MOST_SHOWN = 3
"""How many of the rules that together deny another one are named."""


class RemarkCode(StrEnum):
    """What is remarkable about a rule. A code is part of the interface."""

    RULE_ENDED = "rule-ended"
    RULE_OVERRIDDEN = "rule-overridden"
    PATH_OPEN = "path-open"
    SECRET_UNCHECKED = "secret-unchecked"  # noqa: S105 - a code


@dataclass(frozen=True, slots=True)
class Remark:
    """A rule that is probably a mistake, or can't be checked here, and why: the predicate of a sentence."""

    code: RemarkCode
    rule: Rule
    reason: str

    def __str__(self) -> str:
        """Return the remark as a sentence without a full stop: `FILE, line 3: https a.test:443 has ended`."""
        place = f"{self.rule.place}: " if self.rule.place else ""
        return f"{place}{self.rule} {self.reason}"


def review(rules: RuleSet, now: float) -> tuple[Remark, ...]:
    """Return a remark for each rule that has ended, or that others override, or that denies less than it seems to.

    `now` is in seconds since 1970.
    """
    return tuple(_remarks(rules, now))


def _remarks(rules: RuleSet, now: float) -> Iterator[Remark]:
    denying: dict[Destination, list[Rule]] = {}
    denials = (each for each in rules.at(now).rules if each.denies)
    # Those for most ports first, so that few of them are found to deny much.
    for rule in sorted(denials, key=lambda each: -len(each.ports) if each.port else -HIGHEST_PORT):
        denying.setdefault(rule.destination, []).append(rule)
    opaques: dict[Destination, list[Rule]] = {}
    for rule in rules.opaque if denying else ():
        opaques.setdefault(rule.destination, []).append(rule)
    for rule in rules.rules:
        if rule.until is not None and rule.until <= now:
            yield Remark(RemarkCode.RULE_ENDED, rule, "has ended")
        elif denying and (over := _overriding(denying, rule)):
            yield Remark(RemarkCode.RULE_OVERRIDDEN, rule, f"never applies: {_denied_by(over)}")
        elif rule.denies and (opaque := _forwarding(opaques.get(rule.destination, ()), rule)):
            reason = f"never applies: `{opaque}` forwards whatever comes to this port{opaque.located}"
            yield Remark(RemarkCode.RULE_OVERRIDDEN, rule, reason)
        elif rule.paths and (open_ := next(_without_slash(rule.paths), None)):
            reason = f"allows `{open_.written[1:]}/`: `{open_}` is for whole paths; add `/?` or `(?:/.*)?` to it"
            yield Remark(RemarkCode.PATH_OPEN, rule, reason)


def _without_slash(paths: Paths) -> Iterator[PathRule]:
    """Yield the expressions that deny a path, and not the same path with a slash, which most hosts take for it."""
    for rule in paths.rules:
        if rule.expression and rule.denies:
            first, _ = bounds(rule.path)
            path = first.decode("latin-1")
            methods = rule.methods or (ANY_METHOD,)
            if rule.covers(path) and any(paths.decide(each, f"{path}/").reason is None for each in methods):
                yield rule


def _forwarding(opaques: Sequence[Rule], deny: Rule) -> Rule | None:
    """Return a rule that forwards everything to the ports for which another one denies a protocol over TCP."""
    if not deny.port or deny.transport in {None, Protocol.UDP}:
        return None
    return next(
        (
            each
            for each in opaques
            if each.transport is Protocol.TCP
            and all(port in each.ports and not deny.prevails_over(each, port) for port in deny.ports)
            and _outlasts(each, deny)
        ),
        None,
    )


def _overriding(denying: Mapping[Destination, Sequence[Rule]], rule: Rule) -> Sequence[Rule]:
    """Return rules that together deny all that a rule allows, as long as it exists; none if they leave anything.

    Only rules for the same names do: one for names above it gives way, and one for names below leaves others.
    """
    if rule.denies:
        return ()
    found: dict[int, Rule] = {}
    for destination in [Destination(name, subtree=False) for name in rule.block] or [rule.destination]:
        if destination not in denying:
            return ()
        lasting = [each for each in denying[destination] if _outlasts(each, rule)]
        for key in rule.keys:
            deny = next((each for each in lasting if each.prevails_over(rule, key[1])), None)
            if deny is None:
                return ()
            found[id(deny)] = deny
    return tuple(found.values())


def _outlasts(one: Rule, other: Rule) -> bool:
    return one.until is None or (other.until is not None and other.until <= one.until)


def _denied_by(rules: Sequence[Rule]) -> str:
    if len(rules) == 1:
        return f"`{rules[0]}` has the same name and denies it{rules[0].located}"
    *others, last = [f"`{each}`{each.located}" for each in rules[:_MOST_SHOWN]]
    if len(rules) > _MOST_SHOWN:
        others, last = [*others, last], f"{len(rules) - _MOST_SHOWN} more"
    return f"all that it allows is denied by {', '.join(others)} and {last}"
