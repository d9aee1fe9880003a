"""The canonical set of rules: no duplicates, one order, no contradictions."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from clawker_fw.rules.schema import Protocol, Rule

MOST_RULES = 100_000
MOST_PORTS = 1_000
"""The most that both siblings can apply within seconds in their memory limit (docs/how-it-works.md)."""


class TooManyError(ValueError):
    """There are more rules or ports than a stack supports."""


class ContradictionsError(ValueError):
    """Pairs of rules for the same destination, protocol and port that disagree about private addresses."""

    def __init__(self, pairs: Iterable[tuple[Rule, Rule]]) -> None:
        """Keep the pairs."""
        self.pairs = tuple(pairs)
        super().__init__("only one of two rules for the same sets `allow_private`")


@dataclass(frozen=True)
class RuleSet:
    """Rules in canonical order. An empty set denies everything."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Rule]) -> "RuleSet":
        """Collapse duplicates. Of rules that differ in their end only, the one that ends last counts.

        Raises:
            ContradictionsError: when entries differ in `allow_private` only.
            TooManyError: when there are more rules or ports than a stack supports.
        """
        seen: dict[object, Rule] = {}
        contradictions = []
        for rule in entries:
            key = (rule.destination, rule.protocol, rule.port, rule.action)
            other = seen.setdefault(key, rule)
            if other.allow_private != rule.allow_private:
                contradictions.append((other, rule))
            elif _end(rule) > _end(other):
                seen[key] = rule
        if contradictions:
            raise ContradictionsError(contradictions)
        rules = cls(tuple(sorted(seen.values(), key=_order)))
        for what, most in (("rules", MOST_RULES), ("ports", MOST_PORTS)):
            if (count := len(getattr(rules, what))) > most:
                raise TooManyError(f"there are {count:,} {what}; at most {most:,} are supported")
        return rules

    def at(self, now: float) -> "RuleSet":
        """Return the rules that have not ended yet. `now` is in seconds since 1970."""
        if all(rule.until is None or rule.until > now for rule in self.rules):
            return self
        return replace(self, rules=tuple(rule for rule in self.rules if rule.until is None or rule.until > now))

    def ending(self, now: float) -> tuple[tuple[str, float], ...]:
        """Return the rules that end, soonest first: each as text without its end, and the seconds left of it."""
        ends = sorted((rule.until - now, str(replace(rule, until=None))) for rule in self.rules if rule.until)
        return tuple((text, left) for left, text in ends)

    @cached_property
    def ports(self) -> tuple[int, ...]:
        """The ports that any rule allows, and the two default ports, so that refusals there are logged."""
        defaults = {protocol.default_port for protocol in Protocol}
        return tuple(sorted(defaults | {rule.port for rule in self.rules if rule.port and not rule.denies}))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the rules in canonical form: equal for equal rules, in whatever form they are written."""
        lines = (
            f"{r.destination} {r.protocol} {r.port} {r.allow_private} {r.action} {r.until}\n" for r in self.rules
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _end(rule: Rule) -> float:
    return float("inf") if rule.until is None else rule.until


def _order(rule: Rule) -> tuple[object, ...]:
    return rule.destination, rule.protocol or "", rule.port or 0, rule.action
