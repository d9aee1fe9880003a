"""The policy: what the rules say about every name, protocol and port, compiled once.

Among the rules for a protocol and port, the most specific name decides: the exact name first, then the nearest
name above it that has a subtree rule. Where both an allowing and a denying rule have this name, the denying one
decides. `decide` says just that, for one connection. Everything else is a walk over the same names: the resolver's
list, Envoy's server names and its virtual hosts.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.own_page import PAGE
from clawker_fw.rules.paths import PathRule, Repository
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule, RuleAction
from clawker_fw.rules.ruleset import RuleSet

Key = tuple[Protocol, int]
"""What rules tell connections apart by, besides the name: the transport of the protocol, and the port."""

Allowed = Mapping[Key, Rule]
"""What is allowed, and the rule that allows it."""


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """What happens to a connection: it is allowed by a rule, or refused for a reason, perhaps by a rule.

    For a request, `path` is what of the rule decides; None if that is what it says of all other paths.
    """

    rule: Rule | None
    reason: Reason | None = None
    path: PathRule | Repository | None = None

    @property
    def allowed(self) -> bool:
        """Whether the connection is allowed."""
        return self.reason is None


_NEVER = math.inf


class RuleScope(NamedTuple):
    """What is decided for a name, or for the names below it.

    `inherited` is what names above it allow here, and `own` what its own rules decide: each value is a rule that
    allows something, or one that denies what is inherited. `denies` says whether any of its own rules denies.
    `ends` says until when each of these is allowed at all, in seconds since 1970: a rule that ends gives way to
    the next one that is not more specific, until one denies.
    """

    inherited: Allowed
    own: Mapping[Key, Rule]
    denies: bool
    ends: Mapping[Key, float]

    @property
    def allowed(self) -> Allowed:
        """All that is allowed."""
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
        """When nothing is allowed any more, in seconds since 1970, or None if something always will be."""
        last = max(self.ends.values(), default=0.0)
        return None if last == _NEVER else int(last)


_OURS = Rule(Destination(PAGE, subtree=True), None, None, action=RuleAction.DENY)
"""What takes the name of our page, and names below it, from rules for all around it: they lead to nobody else."""

_NOTHING = RuleScope({}, {}, denies=False, ends={})


class Point(NamedTuple):
    """A name that has rules: what they decide at the name, and below it."""

    name: str
    at: RuleScope
    below: RuleScope

    @property
    def patterns(self) -> tuple[tuple[str, RuleScope], ...]:
        """The patterns with what is decided for each: the name itself, and `*.` for what is below it."""
        return (self.name, self.at), (f"*.{self.name}", self.below)


class Policy:
    """The compiled rules."""

    def __init__(self, rules: RuleSet) -> None:
        """Sort the rules by their names: those for exactly a name, and those also for all below it."""
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
        """Return what happens to a connection, or to a request in it: `path` is with its query.

        With `websocket`, the request asks to become a WebSocket.
        A rule that forwards everything as it is does so whatever protocol is spoken on its port. Where TLS is not
        looked into, all requests of a connection are alike.
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
        return decided or PolicyDecision(None, Reason.WRONG_PORT if self.resolves(name) else Reason.NO_RULE)

    def _decided(self, name: str, transport: Protocol, port: int) -> PolicyDecision | None:
        for rules in self._nearest(name):
            matching = [rule for rule in rules if rule.matches(transport, port)]
            if matching:
                denying = (rule for rule in rules if any(rule.prevails_over(each, port) for each in matching))
                decisive = next(denying, matching[0])
                return PolicyDecision(decisive, Reason.DENIED if decisive.denies else None)
        return None

    def resolves(self, name: str) -> bool:
        """Whether the resolver answers a name: whether anything is allowed there."""
        allowing = (rule for rules in self._nearest(name) for rule in rules if not rule.denies)
        return any(self.decide(name, *key).allowed for rule in allowing for key in rule.keys)

    def covering(self, name: str) -> tuple[Rule, ...]:
        """Return the rules that are for a name, by itself or as one of those below another."""
        return tuple(rule for rules in self._nearest(name) for rule in rules)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """What is decided at and below each name that has rules, parents before children."""
        return tuple(self._walk())

    def patterns(self, protocol: Protocol, port: int) -> Mapping[str, Rule]:
        """Return the rule that decides for each pattern: `a.test` is the name, `*.a.test` what is below it.

        The longest pattern that matches a name decides. Patterns of denying rules are there only where a shorter
        one allows something.
        """
        return self._patterns.get((protocol, port), {})

    @cached_property
    def _patterns(self) -> dict[Key, dict[str, Rule]]:
        found: dict[Key, dict[str, Rule]] = {}
        for pattern, scope in self.scopes.items():
            for key, rule in scope.own.items():
                found.setdefault(key, {})[pattern] = rule
        return found

    @cached_property
    def scopes(self) -> Mapping[str, RuleScope]:
        """What is decided for each pattern that has rules of its own."""
        return {
            **{point.name: point.at for point in self.points if point.at.own},
            **{f"*.{point.name}": point.below for point in self.points if point.below.own},
        }

    def exceptions(self, protocol: Protocol, port: int) -> Mapping[Rule, Sequence[str]]:
        """Return the patterns that are denied within what a rule allows, for each rule with such patterns."""
        return self._exceptions.get((protocol, port), {})

    @cached_property
    def _exceptions(self) -> dict[Key, dict[Rule, list[str]]]:
        found: dict[Key, dict[Rule, list[str]]] = {}
        for point in (each for each in self.points if each.at.denies):
            above = list(self._allowing_above(point.name))
            own = [
                (rule, key) for rule in self._subtree.get(point.name, ()) if not rule.denies for key in rule.keys
            ]
            for (pattern, scope), allowing in zip(point.patterns, ([*own, *above], above), strict=True):
                allowed = scope.allowed
                for rule, key in allowing:
                    if key not in allowed:
                        found.setdefault(key, {}).setdefault(rule, []).append(pattern)
        return found

    def _allowing_above(self, name: str) -> Iterator[tuple[Rule, Key]]:
        """Yield what each rule for a subtree with a name in it allows there, as far as no rule between denies it.

        Also what nearer rules allow as well: connections may be older than these.
        """
        denying: list[Rule] = []
        for above in _above(name):
            rules = self._subtree.get(above, ())
            denying += [rule for rule in rules if rule.denies]
            for rule in rules:
                yield from ((rule, key) for key in rule.keys if not any(each.matches(*key) for each in denying))

    @cached_property
    def opaque(self) -> Collection[str]:
        """The names that need an address of their own: something is forwarded as it is."""
        names = {rule.destination.name for rule in self.rules.opaque}
        return {name for name in names if any(rule.opaque for rule in self.at(name).own.values())}

    def allowed_at(self, names: Iterable[str]) -> Mapping[str, Allowed]:
        """Return all that is allowed at each of these names at which anything is."""
        return {name: allowed for name in names if (allowed := self.at(name).allowed)}

    def at(self, name: str) -> RuleScope:
        """Return what is decided at a name, whether it has rules of its own or is only below one that has."""
        if name in self._by_name:
            return self._by_name[name].at
        return next((self._by_name[each].below for each in _above(name) if each in self._by_name), _NOTHING)

    @cached_property
    def _by_name(self) -> Mapping[str, Point]:
        return {point.name: point for point in self.points}

    def _walk(self) -> Iterator[Point]:
        within = {"": _NOTHING}
        for name in sorted({**self._exact, **self._subtree}, key=lambda name: name.count(".")):
            parent = name.partition(".")[2]
            if parent not in within:
                within[parent] = next(within[each] for each in _above(parent) if each in within)
            above = within[parent]
            exact, subtree = self._exact.get(name, ()), self._subtree.get(name, ())
            below = _scope(above, subtree) if subtree else above
            at = _scope(above, subtree, exact) if exact else below
            if subtree:
                within[name] = RuleScope(below.allowed, {}, denies=False, ends=below.ends)
            yield Point(name, at, below)

    def _nearest(self, name: str) -> Iterator[Sequence[Rule]]:
        """Yield the rules for a name in groups of the same name, the most specific ones first."""
        name = name.lower()
        yield self._exact.get(name, ())
        yield from (self._subtree.get(each, ()) for each in (name, *_above(name)))


def _above(name: str) -> Iterator[str]:
    """Yield the names that a name is below, the nearest first, and the empty one at last."""
    while name:
        name = name.partition(".")[2]
        yield name


def _scope(above: RuleScope, *groups: Iterable[Rule]) -> RuleScope:
    """Return what rules decide within what is decided above them, the most specific group last."""
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
    if denies:  # without an inherited rule, nothing is left that has to be denied
        own = {key: rule for key, rule in own.items() if key in inherited or not rule.denies}
    return RuleScope(inherited, own, denies=denies, ends=ends)
