"""The policy: what the rules decide for every name, protocol and port, compiled once.

Among the rules for a protocol and port, the most specific name decides: first the exact name, then the nearest
subtree rule. With the same name, deny comes before allow. `decide` does that for one connection; the resolver's
list, Envoy's server names and its virtual hosts come from a walk over the same names.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.observing import PRIVATE_DOMAINS, may_be_public
from clawker_fw.rules.own_page import PAGE
from clawker_fw.rules.paths import PathRule, Repository
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule, RuleAction
from clawker_fw.rules.ruleset import RuleSet

Key = tuple[Protocol, int]
"""The transport and port of a connection."""

Allowed = Mapping[Key, Rule]
"""Each allowed transport and port, with the rule that allows it."""


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """The decision on a connection, with the rule that decides, if any, and the reason of a refusal.

    With the reason `observed`, it passes without a rule. For a request, `path` is the part of the rule that
    decides; None means the default for other paths.
    """

    rule: Rule | None
    reason: Reason | None = None
    path: PathRule | Repository | None = None

    @property
    def allowed(self) -> bool:
        """Whether the connection is allowed."""
        return self.reason is None or self.reason.passes


_NEVER = math.inf


class RuleScope(NamedTuple):
    """The decisions for a name, or for the names below it.

    `inherited` comes from names above; `own` comes from the name's rules: allowing ones, and those that deny
    something inherited. `denies` says whether any of its own rules denies. `ends` has the expiry of each allowance
    in seconds since 1970: an expired rule gives way to the next less specific one, until one denies.
    """

    inherited: Allowed
    own: Mapping[Key, Rule]
    denies: bool
    ends: Mapping[Key, float]

    @property
    def allowed(self) -> Allowed:
        """Everything that is allowed."""
        if not self.own:
            return self.inherited
        both = {**self.inherited, **self.own}
        return {key: rule for key, rule in both.items() if not rule.denies} if self.denies else both

    @property
    def resolves(self) -> bool:
        """Whether anything is allowed."""
        return bool(self.ends)

    @property
    def until(self) -> int | None:
        """When the last allowance expires, in seconds since 1970; None if one never does."""
        last = max(self.ends.values(), default=0.0)
        return None if last == _NEVER else int(last)


_OURS = Rule(Destination(PAGE, subtree=True), None, None, action=RuleAction.DENY)
"""Reserves the name of our page, and names below it, when a rule for a subtree would include them."""

_NOTHING = RuleScope({}, {}, denies=False, ends={})


class Point(NamedTuple):
    """A name that has rules, with their decisions at the name and below it."""

    name: str
    at: RuleScope
    below: RuleScope

    @property
    def patterns(self) -> tuple[tuple[str, RuleScope], ...]:
        """The decisions by pattern: the name itself, and `*.` for the names below it."""
        return (self.name, self.at), (f"*.{self.name}", self.below)


class Policy:
    """The compiled rules."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._exact: dict[str, list[Rule]] = {}
        self._subtree: dict[str, list[Rule]] = {}
        for rule in rules.rules:
            by_name = self._subtree if rule.destination.subtree else self._exact
            by_name.setdefault(rule.destination.name, []).append(rule)
        if any(above in self._subtree for above in _above(PAGE)):
            self._subtree[PAGE] = [_OURS]

    def decide(
        self,
        name: str,
        protocol: Protocol,
        port: int,
        method: str | None = None,
        path: str | None = None,
        *,
        websocket: bool = False,
    ) -> PolicyDecision:
        """Decide on a connection, or on a request in it. `path` includes the query.

        `websocket` marks a request to become a WebSocket. A TCP rule covers every protocol on its port. Without
        TLS inspection, all requests of a connection get the same decision.
        """
        decided = self._connected(name, protocol, port)
        inspected = decided.rule.paths if decided.allowed and decided.rule else None
        if inspected is None or path is None:
            return decided
        reason, by = inspected.decide(method or "GET", path, websocket=websocket)
        return PolicyDecision(decided.rule, reason, by)

    def _connected(self, name: str, protocol: Protocol, port: int) -> PolicyDecision:
        opaque = None if protocol is Protocol.UDP else self._decided(name, Protocol.TCP, port)
        decided = opaque if opaque and opaque.allowed else self._decided(name, protocol.transport, port)
        if decided:
            return decided
        if (protocol, port) in self.observed and self.observes(name):
            return PolicyDecision(None, Reason.OBSERVED)
        return PolicyDecision(None, Reason.WRONG_PORT if self._allows(name) else Reason.NO_RULE)

    def _decided(self, name: str, transport: Protocol, port: int) -> PolicyDecision | None:
        for rules in self._nearest(name):
            matching = [rule for rule in rules if rule.matches(transport, port)]
            if matching:
                denying = (rule for rule in rules if any(rule.prevails_over(other, port) for other in matching))
                decisive = next(denying, matching[0])
                return PolicyDecision(decisive, Reason.DENIED if decisive.denies else None)
        return None

    def resolves(self, name: str) -> bool:
        """Whether the resolver answers a name, because something is allowed there, or it is observed."""
        return self._allows(name) or self.observes(name)

    def _allows(self, name: str) -> bool:
        allowing = (rule for rules in self._nearest(name) for rule in rules if not rule.denies)
        return any(self.decide(name, *key).allowed for rule in allowing for key in rule.keys)

    @cached_property
    def observed(self) -> Mapping[Key, Rule]:
        """What passes for names that no rule covers, each with the rule that stands for it."""
        return self.rules.observing.keys(self.rules.rules) if self.rules.observing else {}

    def observes(self, name: str) -> bool:
        """Whether a name is one that no rule covers, and that passes for now."""
        if not self.observed or not may_be_public(name) or any(self._nearest(name)):
            return False
        exact, subtrees = self._closed
        name = name.lower()
        return name not in exact and subtrees.isdisjoint((name, *_above(name)))

    @cached_property
    def _closed(self) -> tuple[AbstractSet[str], AbstractSet[str]]:
        """The names that observing leaves closed, besides those of rules: exact ones, and those with all below."""
        observing = self.rules.observing
        rules = list(observing.closed(self.observed, self.rules.ended)) if observing else []
        exact = {rule.destination.name for rule in rules if not rule.destination.subtree}
        return exact, PRIVATE_DOMAINS.union(rule.destination.name for rule in rules if rule.destination.subtree)

    @cached_property
    def unobserved(self) -> Sequence[str]:
        """The patterns of the names that observing leaves as they are. Patterns below another one are left out."""
        exact, subtrees = (
            {*names, *closed} for names, closed in zip((self._exact, self._subtree), self._closed, strict=True)
        )
        names = [name for name in sorted({*exact, *subtrees}) if subtrees.isdisjoint(_above(name))]
        return [*names, *(f"*.{name}" for name in names if name in subtrees)]

    def covering(self, name: str) -> tuple[Rule, ...]:
        """Return the rules that cover a name, exactly or by a subtree."""
        return tuple(rule for rules in self._nearest(name) for rule in rules)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Each name that has rules, parents before children."""
        return tuple(self._walk())

    def patterns(self, protocol: Protocol, port: int) -> Mapping[str, Rule]:
        """Return the deciding rule per pattern: `a.test` is the name, `*.a.test` every name below it.

        The longest matching pattern decides. Patterns of deny rules appear only where a shorter one allows.
        """
        return self._patterns.get((protocol, port), {})

    @cached_property
    def _patterns(self) -> dict[Key, dict[str, Rule]]:
        patterns: dict[Key, dict[str, Rule]] = {}
        for pattern, scope in self.scopes.items():
            for key, rule in scope.own.items():
                patterns.setdefault(key, {})[pattern] = rule
        return patterns

    @cached_property
    def scopes(self) -> Mapping[str, RuleScope]:
        """The decisions per pattern that has its own rules."""
        return {
            **{point.name: point.at for point in self.points if point.at.own},
            **{f"*.{point.name}": point.below for point in self.points if point.below.own},
        }

    def exceptions(self, protocol: Protocol, port: int) -> Mapping[Rule, Sequence[str]]:
        """Return the denied patterns within what each rule allows. Rules without any are left out."""
        return self._exceptions.get((protocol, port), {})

    @cached_property
    def _exceptions(self) -> dict[Key, dict[Rule, list[str]]]:
        exceptions: dict[Key, dict[Rule, list[str]]] = {}
        for point in (point for point in self.points if point.at.denies):
            above = list(self._allowing_above(point.name))
            own = [
                (rule, key) for rule in self._subtree.get(point.name, ()) if not rule.denies for key in rule.keys
            ]
            for (pattern, scope), allowing in zip(point.patterns, ([*own, *above], above), strict=True):
                allowed = scope.allowed
                for rule, key in allowing:
                    if key not in allowed:
                        exceptions.setdefault(key, {}).setdefault(rule, []).append(pattern)
        return exceptions

    def _allowing_above(self, name: str) -> Iterator[tuple[Rule, Key]]:
        """Yield what each subtree rule above a name allows there, unless a rule between denies it.

        Includes what nearer rules allow too, because a connection may be older than those rules.
        """
        denying: list[Rule] = []
        for above in _above(name):
            rules = self._subtree.get(above, ())
            denying += [rule for rule in rules if rule.denies]
            for rule in rules:
                yield from ((rule, key) for key in rule.keys if not any(deny.matches(*key) for deny in denying))

    @cached_property
    def opaque(self) -> Collection[str]:
        """The names that need their own virtual address, because some traffic to them is forwarded as it is."""
        names = {rule.destination.name for rule in self.rules.opaque}
        return {name for name in names if any(rule.opaque for rule in self.at(name).own.values())}

    def allowed_at(self, names: Iterable[str]) -> Mapping[str, Allowed]:
        """Return the allowances at each of these names that has any."""
        return {name: allowed for name in names if (allowed := self.at(name).allowed)}

    def at(self, name: str) -> RuleScope:
        """Return the decisions at any name, also one without its own rules."""
        if name in self._by_name:
            return self._by_name[name].at
        return next(
            (self._by_name[ancestor].below for ancestor in _above(name) if ancestor in self._by_name), _NOTHING
        )

    @cached_property
    def _by_name(self) -> Mapping[str, Point]:
        return {point.name: point for point in self.points}

    def _walk(self) -> Iterator[Point]:
        within = {"": _NOTHING}
        for name in sorted({**self._exact, **self._subtree}, key=lambda name: name.count(".")):
            parent = name.partition(".")[2]
            if parent not in within:
                within[parent] = next(within[ancestor] for ancestor in _above(parent) if ancestor in within)
            above = within[parent]
            exact, subtree = self._exact.get(name, ()), self._subtree.get(name, ())
            below = _scope(above, subtree) if subtree else above
            at = _scope(above, subtree, exact) if exact else below
            if subtree:
                within[name] = RuleScope(below.allowed, {}, denies=False, ends=below.ends)
            yield Point(name, at, below)

    def _nearest(self, name: str) -> Iterator[Sequence[Rule]]:
        """Yield the rules for a name, grouped by their names, the most specific first."""
        name = name.lower()
        yield self._exact.get(name, ())
        yield from (self._subtree.get(ancestor, ()) for ancestor in (name, *_above(name)))


def _above(name: str) -> Iterator[str]:
    """Yield the parent names, the nearest first and the root ("") last."""
    while name:
        name = name.partition(".")[2]
        yield name


def _scope(above: RuleScope, *groups: Iterable[Rule]) -> RuleScope:
    """Apply groups of rules, the most specific last, to the decisions above them."""
    inherited, ends = above.inherited, dict(above.ends)
    own: dict[Key, Rule] = {}
    denies = False
    for rules in groups:
        for rule in rules:
            if not rule.denies:
                end = _NEVER if rule.until is None else rule.until
                for key in rule.keys:
                    own[key] = rule
                    ends[key] = max(ends.get(key, 0), end)
        for rule in rules:
            if rule.denies:
                allowed = {**inherited, **own}
                for key in [key for key in allowed if rule.prevails_over(allowed[key], key[1])]:
                    own[key] = rule
                    ends.pop(key, None)
                denies = True
    if denies:  # a deny rule is needed only where something is inherited
        own = {key: rule for key, rule in own.items() if key in inherited or not rule.denies}
    return RuleScope(inherited, own, denies=denies, ends=ends)
