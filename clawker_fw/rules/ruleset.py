"""The canonical set of rules: sorted, without duplicates or contradictions. All conflicts are reported at once."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.observing import Observing
from clawker_fw.rules.paths import Injection
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.upstream import Proxy

USUAL_PORTS = (80, 443)
MOST_RULES = 100_000
MOST_INSPECTED = 10_000
MOST_PORTS = 1_000
MOST_OPAQUE_PORTS = 2_000
MOST_UDP_PORTS = 500
"""The most that Envoy and CoreDNS can apply within seconds in their memory limits (docs/how-it-works.md)."""


class TooManyError(ValueError):
    """There are more rules or ports than a stack supports."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two contradicting rules in the order in which they are written, and why as a sentence."""

    first: Rule
    second: Rule
    sentence: str


class ConflictsError(ValueError):
    """Some rules contradict each other: `conflicts` has all pairs."""

    def __init__(self, conflicts: Iterable[Conflict]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__("; ".join(conflict.sentence for conflict in self.conflicts))


@dataclass(frozen=True)
class RuleSet:
    """Rules in canonical order. An empty set denies everything.

    `ended` are expired rules. They decide nothing, but let a refusal say that its rule has expired. `observing` is
    set while what no rule names passes as well. `proxy` is the upstream proxy of `proxied` rules.
    """

    rules: tuple[Rule, ...] = ()
    ended: tuple[Rule, ...] = ()
    observing: Observing | None = None
    proxy: Proxy | None = None

    @classmethod
    def of(cls, entries: Iterable[Rule]) -> "RuleSet":
        """Build a set. Of rules that differ only in their expiry, the last to expire wins; settings beat presets.

        Raises:
            ConflictsError: when rules differ only in `allow_private` or paths, or use the same port of a name.
            TooManyError: when there are more rules or ports than a stack supports.
        """
        rules_by_key: dict[object, Rule] = {}
        conflicts: list[Conflict] = []
        for rule in entries:
            key = (rule.destination, rule.protocol, rule.port, rule.last_port, rule.action)
            other = rules_by_key.setdefault(key, rule)
            if other is rule:
                continue
            if bool(other.preset) is not bool(rule.preset):
                rules_by_key[key] = rule if other.preset else other
            elif _what(other) != _what(rule):
                conflicts.append(_about_the_same(other, rule))
            elif ends(rule) > ends(other):
                rules_by_key[key] = rule
        conflicts += about_ports(rules_by_key.values())
        if conflicts:
            raise ConflictsError(conflicts)
        rules = cls(tuple(sorted(rules_by_key.values(), key=_order)))
        for what, count, most in (
            ("rules", len(rules.rules), MOST_RULES),
            ("rules that inspect TLS", sum(rule.paths is not None for rule in rules.rules), MOST_INSPECTED),
            ("ports", len(rules.ports), MOST_PORTS),
            ("ports of tcp and ssh rules", rules.opaque_ports(datagrams=False), MOST_OPAQUE_PORTS),
            ("ports of udp rules", rules.opaque_ports(datagrams=True), MOST_UDP_PORTS),
        ):
            if count > most:
                raise TooManyError(f"there are {count:,} {what}; at most {most:,} are supported")
        return rules

    def at(self, now: float) -> "RuleSet":
        """Return the set without what has expired. `now` is in seconds since 1970."""
        observing = self.observing if self.observing and self.observing.until > now else None
        if observing == self.observing and all(ends(rule) > now for rule in self.rules):
            return self
        rules = tuple(rule for rule in self.rules if ends(rule) > now)
        ended = [*self.ended, *(rule for rule in self.rules if ends(rule) <= now)]
        return replace(self, rules=rules, ended=tuple(sorted(ended, key=_order)), observing=observing)

    def through(self, proxy: Proxy) -> "RuleSet":
        """Return the set with the rules that a proxy carries marked."""
        rules = tuple(replace(rule, proxied=True) if proxy.carries(rule) else rule for rule in self.rules)
        return replace(self, rules=rules, proxy=proxy)

    @property
    def deadlines(self) -> tuple[int, ...]:
        """The times at which rules and observing expire, in seconds since 1970, the soonest first."""
        observing = {self.observing.until} if self.observing else set()
        return tuple(sorted(observing.union(rule.until for rule in self.rules if rule.until is not None)))

    def ending(self, now: float) -> tuple[tuple[str, float], ...]:
        """Return the expiring rules, soonest first: the text without the expiry, and the seconds left."""
        ends = sorted(
            (rule.until - now, str(replace(rule, until=None))) for rule in self.rules if rule.until is not None
        )
        return tuple((text, left) for left, text in ends)

    @cached_property
    def ports(self) -> tuple[int, ...]:
        """Envoy's ports on its shared address: the rules' ports, and the usual two, to log refusals there."""
        named = {rule.port for rule in self.rules if rule.port and not rule.opaque and not rule.denies}
        return tuple(sorted(named.union(USUAL_PORTS)))

    @cached_property
    def opaque(self) -> tuple[Rule, ...]:
        """The rules that forward traffic as it is."""
        return tuple(rule for rule in self.rules if rule.opaque)

    def opaque_ports(self, *, datagrams: bool) -> int:
        """Return the number of UDP ports (`datagrams`) or TCP ports on virtual addresses."""
        return sum(len(rule.ports) for rule in self.opaque if (rule.transport is Protocol.UDP) is datagrams)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the canonical rules: equal rules have the same digest, however they are written."""
        return hashlib.sha256("".join(f"{line}\n" for line in self.lines).encode()).hexdigest()

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """Each rule as a line of text, and observing."""
        return (*map(str, self.rules), *([str(self.observing)] if self.observing else []))


def injecting(rules: Iterable[Rule]) -> Iterator[tuple[Rule, Injection]]:
    """Yield the rules that inject a secret, with the injection."""
    for rule in rules:
        if rule.paths and rule.paths.injection:
            yield rule, rule.paths.injection


def ends(rule: Rule) -> float:
    """Return when a rule expires, in seconds since 1970; infinity if never."""
    return float("inf") if rule.until is None else rule.until


def _what(rule: Rule) -> tuple[object, ...]:
    """Return the values in which two rules for the same connections must agree."""
    return rule.allow_private, rule.host, rule.paths


def _order(rule: Rule) -> tuple[object, ...]:
    return rule.destination, rule.protocol or "", rule.port or 0, rule.last_port or 0, rule.action, rule.host


def _about_the_same(first: Rule, second: Rule) -> Conflict:
    different = "they lead to different hosts"
    if first.paths != second.paths:
        only = None in {first.paths, second.paths}
        different = "only one of them inspects TLS" if only else "they differ in their paths"
    elif first.host == second.host:
        different = "only one of them sets `allow_private`"
    what = f"{second.destination} ({second.protocol} {second.written_port})"
    return Conflict(first, second, f"two rules for {what} contradict each other: {different}")


def about_ports(rules: Collection[Rule]) -> Iterator[Conflict]:
    """Yield the conflicts between rules for the same port of a name.

    TLS and HTTP can share a port, because their first bytes differ. Traffic that is forwarded as it is needs its
    port exclusively. UDP ports are separate.
    """
    named = dict.fromkeys(rule.destination.name for rule in rules if rule.opaque)
    if not named:
        return
    by_destination: dict[Destination, list[Rule]] = {}
    for rule in (rule for rule in rules if rule.protocol and not rule.denies):
        by_destination.setdefault(rule.destination, []).append(rule)
    for name in named:
        own = by_destination[Destination(name, subtree=False)]
        claiming = [*own, *(rule for subtree in _subtrees(name) for rule in by_destination.get(subtree, ()))]
        yield from _claims(name, [rule for rule in claiming if rule.transport is not Protocol.UDP])
        yield from _claims(name, [rule for rule in claiming if rule.transport is Protocol.UDP])


def _subtrees(name: str) -> Sequence[Destination]:
    parts = name.split(".")
    return [Destination(".".join(parts[start:]), subtree=True) for start in range(len(parts))]


def _claims(name: str, rules: Sequence[Rule]) -> Iterator[Conflict]:
    claimed: dict[int, Rule] = {}
    claims: dict[tuple[Rule, Rule], int] = {}
    for rule in sorted(rules, key=lambda rule: not rule.opaque):
        for port in rule.ports:
            other = claimed.setdefault(port, rule)
            if other is not rule and other.opaque:
                claims.setdefault((other, rule), port)
    for (other, rule), port in claims.items():
        yield Conflict(other, rule, f"two rules use port {port} of {name}: {other} and {rule}")
