"""Rule usage, judged by the current rules.

Envoy's recorder counts what agents used, by name, protocol and port; while Envoy is being replaced, there are two.
`Policy.decide` assigns each use to a rule.
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
    """Return what a project's agents have used.

    Raises:
        RefusedError: when there is no Envoy.
        EngineError: when an Envoy does not answer.
    """
    envoys = [container.id for container in reader.listing() if sibling_of(container, project) is Sibling.ENVOY]
    if not envoys:
        raise RefusedError(
            "not-up",
            f"{project} is not up, so the usage of its agents is unknown.",
            hint="Start it with `clawker-fw run`. What was used before `clawker-fw down` is gone.",
        )
    return together([HelperReader(reader, envoy).usage() for envoy in envoys])


def together(usages: Sequence[Usage]) -> Usage:
    """Merge the counts of several recorders."""
    latest = max(usages, key=lambda usage: usage.now)
    ports = {port for usage in usages for port in usage.open}
    return replace(
        latest,
        since=min(usage.since for usage in usages),
        uses=tuple(use for usage in usages for use in usage.uses),
        lost=sum(usage.lost for usage in usages),
        open={port: sum(usage.open.get(port, 0) for usage in usages) for port in sorted(ports)},
    )


@dataclass(frozen=True)
class RuleUsage:
    """A rule and its uses. `open` are connections that may belong to it, and are counted when they end."""

    rule: Rule
    uses: tuple[Use, ...] = ()
    open: int = 0

    @cached_property
    def last(self) -> float | None:
        """When it was last used, in seconds since 1970, or None if unknown."""
        return max((use.last for use in self.uses), default=None)

    @property
    def connections(self) -> int:
        """The number of ended connections."""
        return sum(use.connections for use in self.uses)

    @property
    def received(self) -> int:
        """Bytes that these received from agents."""
        return sum(use.received for use in self.uses)

    @property
    def sent(self) -> int:
        """Bytes that these sent to agents."""
        return sum(use.sent for use in self.uses)


def usage_of_rules(rules: RuleSet, usage: Usage) -> tuple[RuleUsage, ...]:
    """Return the usage of each rule that allows something and has not expired, in the rules' order.

    Denied rules of presets are left out, because a deny rule is how users remove them.
    """
    in_force = rules.at(usage.now)
    policy = Policy(in_force)
    subtrees: dict[str, list[Rule]] = {}
    for rule in in_force.rules:
        if rule.destination.subtree and not rule.denies:
            subtrees.setdefault(str(rule.destination), []).append(rule)
    uses: dict[Rule, list[Use]] = {}
    for use in usage.uses:
        used = _rule_of(use, policy, subtrees.get(use.name, ()))
        if used:
            uses.setdefault(used, []).append(use)
    return tuple(
        # Open connections of opaque rules are already counted as uses.
        RuleUsage(
            rule,
            tuple(uses.get(rule, ())),
            0 if rule.opaque else sum(usage.open.get(str(port), 0) for port in rule.ports),
        )
        for rule in in_force.rules
        if not rule.denies
        and not (rule.preset and policy.decide(rule.destination.name, *rule.keys[0]).reason is Reason.DENIED)
    )


def _rule_of(use: Use, policy: Policy, subtree: Iterable[Rule]) -> Rule | None:
    """Return the rule of a use: one for its `subtree`, otherwise the one that decides for its name."""
    protocol = Protocol(use.protocol)
    for rule in subtree:
        if rule.matches(protocol.transport, use.port):
            return rule
    decision = policy.decide(use.name.removeprefix("."), protocol, use.port)
    return decision.rule if decision.allowed else None


@dataclass(frozen=True, slots=True)
class Period:
    """A requested period, and the start of the counts: in seconds since 1970."""

    asked: float
    known: float
    now: float

    @classmethod
    def of(cls, usage: Usage, seconds: float) -> "Period":
        """Return the period of the last seconds."""
        return cls(usage.now - seconds, usage.since, usage.now)

    @property
    def begin(self) -> float:
        """The start of the known part."""
        return max(self.asked, self.known)

    @property
    def whole(self) -> bool:
        """Whether all of it is known."""
        return self.known <= self.asked


def unused(usages: Sequence[RuleUsage], period: Period) -> tuple[RuleUsage, ...]:
    """Return the rules without a known use in a period."""
    return tuple(rule_usage for rule_usage in usages if rule_usage.last is None or rule_usage.last < period.begin)


def removing(rule: Rule, file: Path | None) -> str:
    """Return the command that removes a rule from the settings file, or another way."""
    if rule.preset:
        return shlex.join(("clawker-fw", "rules", "deny", *_named(rule), str(rule.destination)))
    if not rule.place.startswith(f"{file}, line "):
        return f"remove it in {rule.place}"
    name = str(rule.destination)
    end = ["--"] if name.startswith("-") else []
    return shlex.join(("clawker-fw", "rules", "remove", *_named(rule), "--action", "allow", *end, name))


def _named(rule: Rule) -> Iterator[str]:
    if rule.protocol:
        yield from ("--proto", rule.protocol)
    if rule.port:
        yield from ("--port", str(rule.written_port))
