"""Rules that contradict each other: found when rules are read, all at once."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.rule import Protocol, Rule


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two rules that can't both hold, in the order in which they are written, and why as a sentence."""

    first: Rule
    second: Rule
    sentence: str

    @property
    def rules(self) -> tuple[Rule, Rule]:
        """Both."""
        return self.first, self.second


def about_the_same(first: Rule, second: Rule) -> Conflict:
    """Return the conflict of two rules for the same that disagree about what they lead to or allow there."""
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
    above = {name: _subtrees(name) for rule in rules if rule.opaque for name in rule.names}
    if not above:
        return
    covering = {*(Destination(name, subtree=False) for name in above), *itertools.chain(*above.values())}
    by_destination: dict[Destination, list[Rule]] = {}
    for rule in (each for each in rules if each.protocol and not each.denies):
        for name in rule.names:
            destination = Destination(name, rule.destination.subtree)
            if destination in covering:
                by_destination.setdefault(destination, []).append(rule)
    told: set[tuple[Rule, Rule]] = set()
    for (name, subtree), own in by_destination.items():
        if not subtree:
            claiming = [*own, *(rule for each in above[name] for rule in by_destination.get(each, ()))]
            yield from _claims(name, [rule for rule in claiming if rule.transport is not Protocol.UDP], told)
            yield from _claims(name, [rule for rule in claiming if rule.transport is Protocol.UDP], told)


def _subtrees(name: str) -> Sequence[Destination]:
    parts = name.split(".")
    return [Destination(".".join(parts[start:]), subtree=True) for start in range(len(parts))]


def _claims(name: str, rules: Sequence[Rule], told: set[tuple[Rule, Rule]]) -> Iterator[Conflict]:
    """Yield the conflicts at a name. Two rules with many names in common are `told` of once."""
    claimed: dict[int, Rule] = {}
    for rule in sorted(rules, key=lambda rule: not rule.opaque):
        for port in rule.ports:
            other = claimed.setdefault(port, rule)
            if other is not rule and other.opaque and (other, rule) not in told:
                told.add((other, rule))
                yield Conflict(other, rule, f"two rules use port {port} of {name}: {other} and {rule}")
