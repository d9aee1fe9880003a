"""What rules are worth: what agents have used of what they allow, by the rules of now.

What was used is read from Envoy's recorder, and while Envoy is being replaced from both. The recorder knows names,
protocols and ports, but no rules. Which rule it was is decided here, by the one policy (`Policy.decide`).
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import RefusedError
from clawker_fw.fwctl import HelperReader
from clawker_fw.model.stacks import Sibling
from clawker_fw.model.usage import Usage, Use
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.labels import sibling_of


def read(reader: EngineReader, project: str) -> Usage:
    """Return what agents of a project have used.

    Raises:
        RefusedError: when there is no Envoy.
        EngineError: when an Envoy can't be asked. What can't be read is never nothing.
    """
    there = [each.id for each in reader.listing() if sibling_of(each, project) is Sibling.ENVOY]
    if not there:
        raise RefusedError(
            "not-up",
            f"{project} is not up, so nobody knows what its agents have used.",
            hint="Start it with `clawker-fw run`. What was used before `clawker-fw down` is gone.",
        )
    return together([HelperReader(reader, each).usage() for each in there])


def together(known: Sequence[Usage]) -> Usage:
    """Return what several recorders know: while Envoy is replaced, there are two."""
    latest = max(known, key=lambda each: each.now)
    ports = {port for each in known for port in each.open}
    return replace(
        latest,
        since=min(each.since for each in known),
        uses=tuple(use for each in known for use in each.uses),
        lost=sum(each.lost for each in known),
        open={port: sum(each.open.get(port, 0) for each in known) for port in sorted(ports)},
    )


@dataclass(frozen=True)
class Worth:
    """A rule, and what was used of it. `open` are connections that may be its own, and count when they end."""

    rule: Rule
    uses: tuple[Use, ...] = ()
    open: int = 0

    @cached_property
    def last(self) -> float | None:
        """When it was used last, in seconds since 1970, or None if that is not known."""
        return max((each.last for each in self.uses), default=None)

    @property
    def connections(self) -> int:
        """How many connections have ended."""
        return sum(each.connections for each in self.uses)

    @property
    def received(self) -> int:
        """Octets from agents in these."""
        return sum(each.received for each in self.uses)

    @property
    def sent(self) -> int:
        """Octets to agents in these."""
        return sum(each.sent for each in self.uses)


def worths(rules: RuleSet, usage: Usage) -> tuple[Worth, ...]:
    """Return what each rule is worth that allows something and has not ended, in the rules' order.

    Rules of presets that are denied are left out: that is how they are taken away.
    """
    in_force = rules.at(usage.now)
    policy = Policy(in_force)
    subtrees: dict[str, list[Rule]] = {}
    for rule in in_force.rules:
        if rule.destination.subtree and not rule.denies:
            subtrees.setdefault(str(rule.destination), []).append(rule)
    found: dict[Rule, list[Use]] = {}
    for use in usage.uses:
        used = _rule_of(use, policy, subtrees.get(use.name, ()))
        if used:
            found.setdefault(used, []).append(use)
    return tuple(
        Worth(rule, tuple(found.get(rule, ())), _open(rule, usage))
        for rule in in_force.rules
        if not rule.denies
        and not (rule.preset and policy.decide(rule.destination.name, *rule.keys[0]).reason is Reason.DENIED)
    )


def _rule_of(use: Use, policy: Policy, subtree: Iterable[Rule]) -> Rule | None:
    """Return the rule that a use belongs to: one for its `subtree`, else the one that decides for its name."""
    protocol = Protocol(use.protocol)
    for rule in subtree:
        if rule.matches(protocol.transport, use.port):
            return rule
    decision = policy.decide(use.name.removeprefix("."), protocol, use.port)
    return decision.rule if decision.allowed else None


def _open(rule: Rule, usage: Usage) -> int:
    """Return how many open connections may be a rule's. Those that are forwarded as they are count already."""
    return 0 if rule.opaque else sum(usage.open.get(str(port), 0) for port in rule.ports)


@dataclass(frozen=True, slots=True)
class Period:
    """A time that was asked for, and the part of it that is known: in seconds since 1970."""

    asked: float
    known: float
    now: float

    @classmethod
    def of(cls, usage: Usage, seconds: float) -> "Period":
        """Return the last so many seconds."""
        return cls(usage.now - seconds, usage.since, usage.now)

    @property
    def begin(self) -> float:
        """From when on it is known what was used."""
        return max(self.asked, self.known)

    @property
    def whole(self) -> bool:
        """Whether all of it is known."""
        return self.known <= self.asked


def unused(found: Sequence[Worth], period: Period) -> tuple[Worth, ...]:
    """Return the rules of which no use is known in a period."""
    return tuple(each for each in found if each.last is None or each.last < period.begin)


def removing(rule: Rule, file: Path | None) -> str:
    """Return the command that removes a rule from the settings file, or what else to do."""
    if rule.preset:
        return shlex.join(("clawker-fw", "rules", "deny", *_named(rule), str(rule.destination)))
    if not rule.place.startswith(f"{file}, line "):
        return f"remove it in {rule.place}"
    name = str(rule.destination)
    words = (
        "rules",
        "remove",
        *_named(rule),
        "--action",
        "allow",
        *(["--"] if name.startswith("-") else []),
        name,
    )
    return shlex.join(("clawker-fw", *words))


def _named(rule: Rule) -> Iterator[str]:
    if rule.protocol:
        yield from ("--proto", rule.protocol)
    if rule.port:
        yield from ("--port", str(rule.written_port))
