"""The canonical set of rules: no duplicates, one order, no contradictions."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from clawker_fw.rules.schema import Protocol, Rule

MOST_RULES = 100_000
MOST_PORTS = 1_000
"""The most that both siblings can apply within seconds in their memory limit (docs/how-it-works.md)."""


class TooManyError(ValueError):
    """There are more rules or ports than a stack supports."""


class ContradictionError(ValueError):
    """Two rules for the same destination, protocol and port disagree about private addresses."""

    def __init__(self, first: int, second: int, rule: Rule) -> None:
        """Keep the positions of the two entries, counted from 0."""
        super().__init__(
            f"two rules for {rule.destination} ({rule.protocol} {rule.port}) contradict each other: "
            "only one of them sets `allow_private`"
        )
        self.positions = (first, second)


@dataclass(frozen=True)
class RuleSet:
    """Rules in canonical order. An empty set denies everything."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Rule]) -> "RuleSet":
        """Collapse duplicates.

        Raises:
            ContradictionError: when two entries differ in `allow_private` only.
            TooManyError: when there are more rules or ports than a stack supports.
        """
        seen: dict[object, tuple[int, Rule]] = {}
        for position, rule in enumerate(entries):
            key = (rule.destination, rule.protocol, rule.port)
            first, other = seen.setdefault(key, (position, rule))
            if other != rule:
                raise ContradictionError(first, position, rule)
        rules = cls(tuple(sorted(rule for _, rule in seen.values())))
        for what, most in (("rules", MOST_RULES), ("ports", MOST_PORTS)):
            if (count := len(getattr(rules, what))) > most:
                raise TooManyError(f"there are {count:,} {what}; at most {most:,} are supported")
        return rules

    @cached_property
    def ports(self) -> tuple[int, ...]:
        """The ports of all rules, and the two default ports, so that refusals there are logged."""
        defaults = {protocol.default_port for protocol in Protocol}
        return tuple(sorted(defaults | {rule.port for rule in self.rules}))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the rules in canonical form: equal for equal rules, in whatever form they are written."""
        lines = (f"{r.destination} {r.protocol} {r.port} {r.allow_private}\n" for r in self.rules)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def on(self, port: int, protocol: Protocol) -> tuple[Rule, ...]:
        """Return the rules for one port and protocol, in canonical order."""
        return self._by_port.get((port, protocol), ())

    @cached_property
    def _by_port(self) -> dict[tuple[int, Protocol], tuple[Rule, ...]]:
        grouped: dict[tuple[int, Protocol], list[Rule]] = {}
        for rule in self.rules:
            grouped.setdefault((rule.port, rule.protocol), []).append(rule)
        return {key: tuple(rules) for key, rules in grouped.items()}
