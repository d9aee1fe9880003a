"""The canonical set of rules: no duplicates, one order, no contradictions."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from clawker_fw.rules.schema import Protocol, Rule

MOST_RULES = 100_000
MOST_PORTS = 1_000
"""What both siblings take live within seconds, in the memory that they have (docs/how-it-works.md)."""


class TooManyError(ValueError):
    """There are more rules, or ports in them, than a stack can have."""


class ContradictionError(ValueError):
    """Two rules for the same destination, protocol and port disagree about private addresses."""

    def __init__(self, first: int, second: int, rule: Rule) -> None:
        """Keep the positions of the two entries, counted from 0."""
        super().__init__(
            f"{rule.destination} ({rule.protocol} {rule.port}) is allowed private addresses by one rule "
            "and refused them by another"
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
            TooManyError: when there are more than a stack can have.
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
                raise TooManyError(f"there are {count:,} {what}, and {most:,} is the most")
        return rules

    @cached_property
    def ports(self) -> tuple[int, ...]:
        """Every port that some rule names, and the two defaults, so that refusals there are recorded."""
        defaults = {protocol.default_port for protocol in Protocol}
        return tuple(sorted(defaults | {rule.port for rule in self.rules}))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the rules in canonical form: equal for equal rules, however they are written."""
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
