"""Promises: what rules must never allow, and what they must always allow.

A promise has the form of a rule: `never` like a deny rule, `always` like an allow rule. Promises are checked
whenever rules are read; rules that break one are not used.

A promise holds at all times. So a temporary deny does not keep `never`, a temporary allow does not keep `always`,
and expired rules count like any other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.rules.destination import EVERY_NAME, Destination
from clawker_fw.rules.policy import Key, Policy
from clawker_fw.rules.rule import Protocol, Rule, RuleAction
from clawker_fw.rules.ruleset import RuleSet

_ANOTHER = "*"
"""Stands for a label that no rule names."""


class PromiseKind(StrEnum):
    """The kinds of promises, named as in the settings."""

    NEVER = "never"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise, in the form of the rule that would keep it."""

    kind: PromiseKind
    rule: Rule

    @property
    def place(self) -> str:
        """Where it is written."""
        return self.rule.place

    @property
    def about_every_name(self) -> bool:
        """Whether it is only about protocols and ports."""
        return self.rule.destination == EVERY_NAME

    @property
    def points(self) -> Iterator[str]:
        """Its name and, for a subtree, a sample name below it."""
        if not self.about_every_name:
            yield from _points(self.rule)

    def covers(self, name: str) -> bool:
        """Whether it applies to a name."""
        return self.about_every_name or self.rule.covers(name)

    def forbids(self, name: str, protocol: Protocol, port: int) -> bool:
        """Whether no rule may ever allow this connection."""
        policy = Policy(RuleSet((Rule(Destination(name, subtree=False), protocol, port),)))
        never = self.kind is PromiseKind.NEVER and self.covers(name)
        return never and any(policy.decide(name, *key).allowed for key in self.among([(protocol.transport, port)]))

    def among(self, keys: Iterable[Key]) -> Iterator[Key]:
        """Yield the keys that the promise covers. Without a protocol, it covers the key's transport."""
        for transport, port in keys:
            if self.rule.port is None or port in self.rule.ports:
                yield self.rule.protocol or transport, port

    def __str__(self) -> str:
        """Return one line: `never udp .corp.example:53`, `never any *:25`."""
        words = str(self.rule).removeprefix(f"{RuleAction.DENY} ")
        if self.about_every_name:
            port = f":{self.rule.written_port}" if self.rule.port else ""
            words = f"{self.rule.protocol or 'any'} *{port}"
        return f"{self.kind} {words}"


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """A broken promise, the rule that breaks it, if any, and why as a clause."""

    promise: Promise
    rule: Rule | None
    reason: str

    @property
    def places(self) -> tuple[str, ...]:
        """Where the promise and the rule are written."""
        return tuple(filter(None, (self.promise.place, self.rule.place if self.rule else "")))

    def __str__(self) -> str:
        """Return a sentence without a full stop."""
        return f"`{self.promise}` is promised ({self.promise.place}), and {self.reason}"


def broken(promises: Sequence[Promise], rules: RuleSet) -> tuple[BrokenPromise, ...]:
    """Return the broken promises, once per rule that breaks them."""
    if not promises:
        return ()
    whole = lasting = kept = Policy(rules)
    if rules.deadlines:
        lasting = Policy(RuleSet(tuple(rule for rule in rules.rules if rule.until is None or not rule.denies)))
        kept = Policy(RuleSet(tuple(rule for rule in rules.rules if rule.until is None or rule.denies)))
    broken_promises: list[BrokenPromise] = []
    for promise in promises:
        if promise.kind is PromiseKind.NEVER:
            broken_promises += _allowed(promise, lasting)
        else:
            broken_promises += _refused(promise, kept, whole)
    return tuple(broken_promises)


def _allowed(promise: Promise, policy: Policy) -> Iterator[BrokenPromise]:
    """Yield the rules that allow something that must never be allowed.

    Samples the names of each rule and of the promise. The traffic that a rule lets through counts, not its
    protocol: TLS passes a tcp rule.
    """
    reported: set[Rule] = set()
    for rule in (rule for rule in policy.rules.rules if not rule.denies and _may_meet(promise, rule)):
        names = [name for name in _points(rule) if promise.covers(name)]
        names += [name for name in promise.points if rule.covers(name)]
        for decided in (policy.decide(name, *key) for name in names for key in promise.among(rule.keys)):
            if decided.rule and decided.allowed and decided.rule not in reported:
                reported.add(decided.rule)
                reason = f"`{decided.rule}` allows some of it{decided.rule.located}"
                yield BrokenPromise(promise, decided.rule, reason)


def _may_meet(promise: Promise, rule: Rule) -> bool:
    """Whether a promise and a rule can overlap. Fast, because there may be many of both."""
    if promise.rule.port and not rule.last_port and rule.port not in promise.rule.ports:
        return False
    own, other = promise.rule.destination, rule.destination
    return (
        promise.about_every_name
        or own.name == other.name
        or (own.subtree and other.name.endswith(f".{own.name}"))
        or (other.subtree and own.name.endswith(f".{other.name}"))
    )


def _refused(promise: Promise, kept: Policy, whole: Policy) -> Iterator[BrokenPromise]:
    """Yield what refuses something that must always be allowed: a rule, or the lack of one."""
    names = list(promise.points)
    if promise.rule.destination.subtree:
        names += [name for rule in kept.rules.rules for name in _points(rule) if promise.covers(name)]
    protocol = promise.rule.protocol or Protocol.HTTPS
    reported: set[Rule | None] = set()
    for name in dict.fromkeys(names):
        for port in promise.rule.ports:
            decided = kept.decide(name, protocol, port)
            if decided.allowed or decided.rule in reported:
                continue
            reported.add(decided.rule)
            if rule := decided.rule:
                reason = f"`{rule}` denies some of it{rule.located}"
            elif rule := whole.decide(name, protocol, port).rule:
                reason = f"`{rule}` allows it only until its end{rule.located}"
            else:
                reason = "no rule allows all of it"
            yield BrokenPromise(promise, rule, reason)


def _points(rule: Rule) -> Iterator[str]:
    yield rule.destination.name
    if rule.destination.subtree:
        yield f"{_ANOTHER}.{rule.destination.name}"
