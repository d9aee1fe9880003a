"""The canonical set of rules: no duplicates, one order, no contradictions, which are found all at once."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.paths import Injection
from clawker_fw.rules.rule import Protocol, Rule

USUAL_PORTS = (80, 443)
MOST_RULES = 100_000
MOST_INSPECTED = 10_000
MOST_PORTS = 1_000
MOST_OPAQUE_PORTS = 2_000
MOST_UDP_PORTS = 500
"""The most that both siblings can apply within seconds in their memory limit (docs/how-it-works.md)."""


class TooManyError(ValueError):
    """There are more rules or ports than a stack supports."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two rules that can't both hold, in the order in which they are written, and why as a sentence."""

    first: Rule
    second: Rule
    sentence: str


class ConflictsError(ValueError):
    """Some rules contradict each other."""

    def __init__(self, conflicts: Iterable[Conflict]) -> None:
        """Keep the conflicts."""
        self.conflicts = tuple(conflicts)
        super().__init__("; ".join(each.sentence for each in self.conflicts))


@dataclass(frozen=True)
class RuleSet:
    """Rules in canonical order. An empty set denies everything.

    `ended` are those that were in force before a time, and are not any more: they decide nothing, and are known to
    say so to who asks for what they allowed.
    """

    rules: tuple[Rule, ...] = ()
    ended: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Rule]) -> "RuleSet":
        """Collapse duplicates. Of rules that differ in their end only, the one that ends last counts.

        A rule of a preset counts only if there is none of the settings for the same.

        Raises:
            ConflictsError: when rules differ in `allow_private` or paths only, or claim the same port of a name.
            TooManyError: when there are more rules or ports than a stack supports.
        """
        seen: dict[object, Rule] = {}
        found: list[Conflict] = []
        for rule in entries:
            key = (rule.destination, rule.protocol, rule.port, rule.last_port, rule.action)
            other = seen.setdefault(key, rule)
            if other is rule:
                continue
            if bool(other.preset) is not bool(rule.preset):
                seen[key] = rule if other.preset else other
            elif _what(other) != _what(rule):
                found.append(_about_the_same(other, rule))
            elif ends(rule) > ends(other):
                seen[key] = rule
        found += about_ports(seen.values())
        if found:
            raise ConflictsError(found)
        rules = cls(tuple(sorted(seen.values(), key=_order)))
        for what, count, most in (
            ("rules", len(rules.rules), MOST_RULES),
            ("rules that look into TLS", sum(rule.paths is not None for rule in rules.rules), MOST_INSPECTED),
            ("ports", len(rules.ports), MOST_PORTS),
            ("ports of tcp and ssh rules", rules.opaque_ports(datagrams=False), MOST_OPAQUE_PORTS),
            ("ports of udp rules", rules.opaque_ports(datagrams=True), MOST_UDP_PORTS),
        ):
            if count > most:
                raise TooManyError(f"there are {count:,} {what}; at most {most:,} are supported")
        return rules

    def at(self, now: float) -> "RuleSet":
        """Return the rules that have not ended yet. `now` is in seconds since 1970."""
        if all(ends(rule) > now for rule in self.rules):
            return self
        rules = tuple(rule for rule in self.rules if ends(rule) > now)
        ended = [*self.ended, *(rule for rule in self.rules if ends(rule) <= now)]
        return RuleSet(rules, tuple(sorted(ended, key=_order)))

    @property
    def deadlines(self) -> tuple[int, ...]:
        """The times at which rules end, in seconds since 1970, the soonest first."""
        return tuple(sorted({rule.until for rule in self.rules if rule.until is not None}))

    def ending(self, now: float) -> tuple[tuple[str, float], ...]:
        """Return the rules that end, soonest first: each as text without its end, and the seconds left of it."""
        ends = sorted(
            (rule.until - now, str(replace(rule, until=None))) for rule in self.rules if rule.until is not None
        )
        return tuple((text, left) for left, text in ends)

    @cached_property
    def ports(self) -> tuple[int, ...]:
        """The ports of Envoy's own address: those of rules for hosts that are named, and the two usual ones.

        So refusals at the usual ones are logged, whatever the rules are.
        """
        named = {rule.port for rule in self.rules if rule.port and not rule.opaque and not rule.denies}
        return tuple(sorted(named.union(USUAL_PORTS)))

    @cached_property
    def opaque(self) -> tuple[Rule, ...]:
        """The rules that forward everything as it is."""
        return tuple(rule for rule in self.rules if rule.opaque)

    def opaque_ports(self, *, datagrams: bool) -> int:
        """Return how many ports of names with an address of their own are listened on."""
        return sum(len(rule.ports) for rule in self.opaque if (rule.transport is Protocol.UDP) is datagrams)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the rules in canonical form: equal for equal rules, in whatever form they are written."""
        return hashlib.sha256("".join(f"{line}\n" for line in self.lines).encode()).hexdigest()

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """Each rule as a line of text."""
        return tuple(map(str, self.rules))


def injecting(rules: Iterable[Rule]) -> Iterator[tuple[Rule, Injection]]:
    """Yield the rules that put a secret into requests, with what they put in."""
    for rule in rules:
        if rule.paths and rule.paths.injection:
            yield rule, rule.paths.injection


def ends(rule: Rule) -> float:
    """Return when a rule ends, in seconds since 1970; infinity if it never does."""
    return float("inf") if rule.until is None else rule.until


def _what(rule: Rule) -> tuple[object, ...]:
    """Return what two rules for the same must not differ in."""
    return rule.allow_private, rule.host, rule.paths


def _order(rule: Rule) -> tuple[object, ...]:
    return rule.destination, rule.protocol or "", rule.port or 0, rule.last_port or 0, rule.action, rule.host


def _about_the_same(first: Rule, second: Rule) -> Conflict:
    different = "they lead to different hosts"
    if first.paths != second.paths:
        only = None in {first.paths, second.paths}
        different = "only one of them looks into TLS" if only else "they differ in their paths"
    elif first.host == second.host:
        different = "only one of them sets `allow_private`"
    what = f"{second.destination} ({second.protocol} {second.written_port})"
    return Conflict(first, second, f"two rules for {what} contradict each other: {different}")


def about_ports(rules: Collection[Rule]) -> Iterator[Conflict]:
    """Yield the conflicts of rules that claim the same port of a name.

    TLS and HTTP are told apart by the first bytes, so they can share a port. What is forwarded as it is has its
    ports for itself. Ports of UDP are other ports.
    """
    named = dict.fromkeys(rule.destination.name for rule in rules if rule.opaque)
    if not named:
        return
    by_destination: dict[Destination, list[Rule]] = {}
    for rule in (each for each in rules if each.protocol and not each.denies):
        by_destination.setdefault(rule.destination, []).append(rule)
    for name in named:
        own = by_destination[Destination(name, subtree=False)]
        claiming = [*own, *(rule for each in _subtrees(name) for rule in by_destination.get(each, ()))]
        yield from _claims(name, [rule for rule in claiming if rule.transport is not Protocol.UDP])
        yield from _claims(name, [rule for rule in claiming if rule.transport is Protocol.UDP])


def _subtrees(name: str) -> Sequence[Destination]:
    parts = name.split(".")
    return [Destination(".".join(parts[start:]), subtree=True) for start in range(len(parts))]


def _claims(name: str, rules: Sequence[Rule]) -> Iterator[Conflict]:
    """Yield the conflicts at a name: each pair of rules is told of once."""
    claimed: dict[int, Rule] = {}
    found: dict[tuple[Rule, Rule], int] = {}
    for rule in sorted(rules, key=lambda rule: not rule.opaque):
        for port in rule.ports:
            other = claimed.setdefault(port, rule)
            if other is not rule and other.opaque:
                found.setdefault((other, rule), port)
    for (other, rule), port in found.items():
        yield Conflict(other, rule, f"two rules use port {port} of {name}: {other} and {rule}")
