"""Promises about rules: what they never allow, and what they always allow.

A promise has the form of a rule. `never` is for what a rule that denies would be for, `always` for what one that
allows is for. Promises decide nothing in a stack: they are checked wherever rules are read, and rules that break
one are not used at all.

A promise holds at all times. So a rule that denies until some time keeps no `never`, one that allows until some
time keeps no `always`, and one that has ended counts like any other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr, model_validator

from clawker_fw.rules.destination import Destination, parse_destination
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import HOST, HOST_NAME, Protocol, Rule, RuleAction, WrittenPorts, WrittenProtocol

_EVERY_NAME = Destination("", subtree=True)

_ANOTHER = "*"
"""A label that stands for a name that no rule has."""


class PromiseKind(StrEnum):
    """What is promised of what a promise is for, by the names of the settings."""

    NEVER = "never"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise, in the form of the rule that would keep it by itself."""

    kind: PromiseKind
    rule: Rule

    @property
    def place(self) -> str:
        """Where it is written."""
        return self.rule.place

    @property
    def about_every_name(self) -> bool:
        """Whether it is about protocols and ports alone."""
        return self.rule.destination == _EVERY_NAME

    @property
    def points(self) -> Iterator[str]:
        """The name that it is for, and one below it, if it is for those."""
        if not self.about_every_name:
            yield from _points(self.rule)

    def covers(self, name: str) -> bool:
        """Whether it is for a name."""
        return self.about_every_name or self.rule.covers(name)

    def forbids(self, name: str, protocol: Protocol, port: int) -> bool:
        """Whether no rule may ever allow this connection."""
        wanted = Rule(Destination(name, subtree=False), protocol, port)
        never = self.kind is PromiseKind.NEVER
        return never and self.covers(name) and self.rule.prevails_over(wanted, port)

    def __str__(self) -> str:
        """Return it in one line: `never udp .corp.example:53`, `never any *:25`."""
        words = str(self.rule).removeprefix(f"{RuleAction.DENY} ")
        if self.about_every_name:
            port = f":{self.rule.written_port}" if self.rule.port else ""
            words = f"{self.rule.protocol or 'any'} *{port}"
        return f"{self.kind} {words}"


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """A promise that rules break, the rule that does, if it is one, and why as a clause."""

    promise: Promise
    rule: Rule | None
    reason: str

    @property
    def places(self) -> tuple[str, ...]:
        """Where the promise and the rule are written."""
        return tuple(filter(None, (self.promise.place, self.rule.place if self.rule else "")))

    def __str__(self) -> str:
        """Return it as a sentence without a full stop."""
        return f"`{self.promise}` is promised ({self.promise.place}), and {self.reason}"


def _name(text: str) -> str:
    if text.strip().lower() == HOST:
        raise ValueError(f"promises are about the names that agents use: write `{HOST_NAME}`, or what `as` names")
    return str(parse_destination(text))


class PromiseEntry(BaseModel):
    """What promises of both kinds have in common, as a user writes it."""

    # Built as parts of the settings alone, because each model that is built delays every command.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    dst: Annotated[StrictStr, AfterValidator(_name)] | None = Field(
        default=None,
        description="A host name, exactly; with a leading dot, that name and everything below it. "
        "Default: every name.",
    )
    proto: WrittenProtocol | None = Field(default=None, description="The protocol. Default: every protocol.")
    port: WrittenPorts | None = Field(
        default=None, description="The port, or several as `1-1023`. Default: every port."
    )
    note: StrictStr = Field(default="", max_length=200, description="Why, for people.")

    @property
    def as_written(self) -> str | dict[str, Any]:
        """The shortest form in which it can be written."""
        first, last = self.port or (None, None)
        fields = {
            "dst": self.dst,
            "proto": self.proto and self.proto.value,
            "port": f"{first}-{last}" if last else first,
            "note": self.note,
        }
        given = {name: value for name, value in fields.items() if value}
        return str(self.dst) if set(given) == {"dst"} else given


class NeverEntry(PromiseEntry):
    """An entry of `never`, as a user writes it."""

    @model_validator(mode="after")
    def _is_about_something(self) -> Self:
        if not (self.dst or self.proto or self.port):
            raise ValueError("`never` needs a `dst`, a `proto` or a `port`; to allow nothing, write `rules: []`")
        return self

    def promise(self, place: str = "") -> Promise:
        """Return the promise. `place` is where it was written."""
        first, last = self.port or (None, None)
        where = parse_destination(self.dst) if self.dst else _EVERY_NAME
        rule = Rule(where, self.proto, first, action=RuleAction.DENY, last_port=last, note=self.note, place=place)
        return Promise(PromiseKind.NEVER, rule)


class AlwaysEntry(PromiseEntry):
    """An entry of `always`, as a user writes it."""

    dst: Annotated[StrictStr, AfterValidator(_name)] = Field(
        description="A host name, exactly; with a leading dot, that name and everything below it."
    )
    proto: WrittenProtocol | None = Field(default=None, description="The protocol. Default: https.")
    port: WrittenPorts | None = Field(
        default=None,
        description="The port, or several as `8000-8010`. Default: 443 for https, 80 for http, 22 for ssh.",
    )

    @model_validator(mode="after")
    def _has_a_port(self) -> Self:
        if self.port is None and self.proto and self.proto.default_port is None:
            raise ValueError(f"`always` with `proto: {self.proto}` needs a `port`")
        return self

    def promise(self, place: str = "") -> Promise:
        """Return the promise. `place` is where it was written."""
        protocol = self.proto or Protocol.HTTPS
        first, last = self.port or (protocol.default_port, None)
        rule = Rule(parse_destination(self.dst), protocol, first, last_port=last, note=self.note, place=place)
        return Promise(PromiseKind.ALWAYS, rule)


def promise_entry(value: object) -> object:
    """Return an entry that is written as a name alone in its long form."""
    return {"dst": value} if isinstance(value, str) else value


def broken(promises: Sequence[Promise], rules: RuleSet) -> tuple[BrokenPromise, ...]:
    """Return the promises that rules break, each with each rule that breaks it."""
    if not promises:
        return ()
    whole = lasting = kept = Policy(rules)
    if rules.deadlines:
        lasting = Policy(RuleSet(tuple(each for each in rules.rules if each.until is None or not each.denies)))
        kept = Policy(RuleSet(tuple(each for each in rules.rules if each.until is None or each.denies)))
    found: list[BrokenPromise] = []
    for promise in promises:
        if promise.kind is PromiseKind.NEVER:
            found += _allowed(promise, lasting)
        else:
            found += _refused(promise, kept, whole)
    return tuple(found)


def _allowed(promise: Promise, policy: Policy) -> Iterator[BrokenPromise]:
    """Yield the rules that allow something of what is never to be allowed.

    Among the names for which a rule decides are its own, one below it, and those of the promise.
    """
    told: set[Rule] = set()
    for rule in policy.rules.rules:
        if rule.denies or not _may_meet(promise, rule):
            continue
        names = [name for name in _points(rule) if promise.covers(name)]
        names += [name for name in promise.points if rule.covers(name)]
        for decisive in _deciding(promise, policy, names, rule) if names else ():
            if decisive not in told:
                told.add(decisive)
                yield BrokenPromise(promise, decisive, f"`{decisive}` allows some of it{decisive.located}")


def _may_meet(promise: Promise, rule: Rule) -> bool:
    """Whether a promise and a rule can be for the same; quickly, because there may be many of both."""
    if promise.rule.port and not rule.last_port and rule.port not in promise.rule.ports:
        return False
    own, other = promise.rule.destination, rule.destination
    return (
        promise.about_every_name
        or bool(rule.host)
        or own.name == other.name
        or (own.subtree and other.name.endswith(f".{own.name}"))
        or (other.subtree and own.name.endswith(f".{other.name}"))
    )


def _deciding(promise: Promise, policy: Policy, names: Iterable[str], rule: Rule) -> Iterator[Rule]:
    """Yield the rules that allow what a rule is for at these names, as far as the promise is for it."""
    keys = [key for key in rule.keys if promise.rule.prevails_over(rule, key[1])]
    for name in names:
        for transport, port in keys:
            decided = policy.decide(name, transport, port)
            if decided.rule and decided.allowed and promise.rule.prevails_over(decided.rule, port):
                yield decided.rule


def _refused(promise: Promise, kept: Policy, whole: Policy) -> Iterator[BrokenPromise]:
    """Yield what refuses something of what is always to be allowed: rules, or that there is none."""
    names = list(promise.points)
    if promise.rule.destination.subtree:
        names += [name for rule in kept.rules.rules for name in _points(rule) if promise.covers(name)]
    protocol = promise.rule.protocol or Protocol.HTTPS
    told: set[Rule | None] = set()
    for name in dict.fromkeys(names):
        for port in promise.rule.ports:
            decided = kept.decide(name, protocol, port)
            if decided.allowed or decided.rule in told:
                continue
            told.add(decided.rule)
            yield _refusal(promise, decided.rule, whole.decide(name, protocol, port).rule)


def _refusal(promise: Promise, denying: Rule | None, ending: Rule | None) -> BrokenPromise:
    if denying:
        return BrokenPromise(promise, denying, f"`{denying}` denies some of it{denying.located}")
    if ending:
        return BrokenPromise(promise, ending, f"`{ending}` allows it only until its end{ending.located}")
    return BrokenPromise(promise, None, "no rule allows all of it")


def _points(rule: Rule) -> Iterator[str]:
    """Yield the names of a rule, and one below each if it is for those."""
    for name in rule.names:
        yield name
        if rule.destination.subtree:
            yield f"{_ANOTHER}.{name}"
