"""Valid rules that are probably wrong, because they have no effect or less than they seem to."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.rules.paths import ANY_METHOD, PathRule, Paths
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.spellings import bounds

_MOST_SHOWN = 3
"""How many overriding rules a remark names."""


class RemarkCode(StrEnum):
    """The kinds of remarks. The codes are part of the interface."""

    RULE_ENDED = "rule-ended"
    RULE_OVERRIDDEN = "rule-overridden"
    PATH_OPEN = "path-open"
    SECRET_UNCHECKED = "secret-unchecked"  # noqa: S105 - a code
    CONNECT_PORT = "connect-port"


@dataclass(frozen=True, slots=True)
class Remark:
    """A rule that is probably wrong, or can't be checked here, and why: the predicate of a sentence."""

    code: RemarkCode
    rule: Rule
    reason: str

    def __str__(self) -> str:
        """Return a sentence without a full stop: `FILE, line 3: https a.test:443 has ended`."""
        place = f"{self.rule.place}: " if self.rule.place else ""
        return f"{place}{self.rule} {self.reason}"


def review(rules: RuleSet, now: float) -> tuple[Remark, ...]:
    """Return a remark per rule that has expired, is overridden, or does less than it seems to.

    `now` is in seconds since 1970. Only permanent rules override others here.
    """
    return tuple(_remarks(rules, now))


def _remarks(rules: RuleSet, now: float) -> Iterator[Remark]:
    lasting = Policy(RuleSet(tuple(rule for rule in rules.at(now).rules if rule.until is None or not rule.denies)))
    denied = {rule.destination.name for rule in lasting.rules.rules if rule.denies}
    for rule in rules.rules:
        if rule.until is not None and rule.until <= now:
            yield Remark(RemarkCode.RULE_ENDED, rule, "has ended")
        elif not rule.preset and rule.destination.name in denied and (over := _overriding(lasting, rule)):
            yield Remark(RemarkCode.RULE_OVERRIDDEN, rule, f"never applies: {_instead(rule, over)}")
        elif ports := rules.proxy.refused_ports(rule) if rules.proxy else ():
            numbers = ", ".join(map(str, ports[:_MOST_SHOWN])) + ("…" if len(ports) > _MOST_SHOWN else "")
            reason = f"needs port {numbers}, which `upstream.connect_ports` lacks: the proxy may refuse it"
            yield Remark(RemarkCode.CONNECT_PORT, rule, reason)
        elif rule.paths and (open_ := next(_without_slash(rule.paths), None)):
            reason = f"allows `{open_.written[1:]}/`: `{open_}` is for whole paths; add `/?` or `(?:/.*)?` to it"
            yield Remark(RemarkCode.PATH_OPEN, rule, reason)


def _without_slash(paths: Paths) -> Iterator[PathRule]:
    """Yield deny expressions that miss the same path with a trailing slash, which most hosts treat as equal."""
    for rule in paths.rules:
        if rule.expression and rule.denies:
            first, _ = bounds(rule.path)
            path = first.decode("latin-1")
            methods = rule.methods or (ANY_METHOD,)
            if rule.covers(path) and any(paths.decide(method, f"{path}/").reason is None for method in methods):
                yield rule


def _overriding(policy: Policy, rule: Rule) -> list[Rule]:
    """Return the rules that override all of a rule; an empty list if it decides anything itself."""
    name = f"*.{rule.destination.name}" if rule.destination.subtree else rule.destination.name
    overriding: dict[Rule, None] = {}
    for decided in (policy.decide(name, *key).rule for key in rule.keys):
        if decided is None or decided.denies is rule.denies or decided.until is not None:
            return []
        overriding[decided] = None
    return list(overriding)


def _instead(rule: Rule, over: list[Rule]) -> str:
    names = ", ".join(f"`{rule}`{rule.located}" for rule in over[:_MOST_SHOWN])
    more = f" and {len(over) - _MOST_SHOWN} more" if len(over) > _MOST_SHOWN else ""
    what = "whatever comes to its port is forwarded" if rule.denies else "all that it allows is denied"
    return f"{what} by {names}{more}"
