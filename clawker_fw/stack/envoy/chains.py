"""Filter chains: each rule has its own, so that a removed rule ends its connections and no others.

Envoy drains the connections of a filter chain that is removed or renamed, and of no other (measured;
docs/how-it-works.md). The matcher that selects among the chains may change freely.
"""

import hashlib
import json
import operator
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.stack.envoy import lookups
from clawker_fw.stack.envoy.messages import Json, extension, typed

ALONE, SHARED = 10_000, 1_000
"""So many rules of a port and protocol have a chain each, and all others share so many chains, by hash.

A chain costs Envoy 0.1 ms at each change of the rules, and 8 KB (docs/how-it-works.md).
"""

DENIED = "denied"
"""The chain for names that a rule denies within what another one allows: it ends the connection."""

REFUSED = "refused"
"""The chain for all other names that no rule allows, and for TLS that names none."""

INSPECTED = "inspected"
"""The chain for TLS that is looked into (`inspected`)."""

_ACCESS_DENIED = bytes((0x15, 3, 3, 0, 2, 2, 49))
"""A record of TLS 1.2 with the fatal alert `access_denied` (RFC 8446, sections 5.1 and 6.2).

Every client says what it was told. Without it they speak of a reset connection, as after a failure of the network.
"""


@dataclass(frozen=True, slots=True)
class Chains:
    """The chains for one protocol and port: the rule that decides for each pattern, and each rule's chain.

    A rule is known by its destination here, and `rules` has one for each chain that forwards: those that share it
    are alike.
    """

    patterns: Mapping[str, Rule]
    names: Mapping[Destination, str]
    rules: Mapping[str, Rule]


def chains(prefix: str, policy: Policy, protocol: Protocol, port: int) -> Chains:
    """Return the chains for a protocol and port."""
    return of_rules(prefix, policy.patterns(protocol, port), policy.exceptions(protocol, port))


def of_rules(
    prefix: str, patterns: Mapping[str, Rule], exceptions: Mapping[Rule, Sequence[str]] = MappingProxyType({})
) -> Chains:
    """Return the chains, with the name of that of each rule.

    A shared chain is named after what shares it: with another name, only the connections of those who shared it
    are drained. So is the chain of a rule that has another exception: what is denied now may be among its
    connections. All rules for which TLS is looked into have one chain, which knows requests.
    """
    allowing = {rule.destination: rule for rule in patterns.values() if not rule.denies}
    rules = {str(each): rule for each, rule in allowing.items() if not rule.paths}
    exceptional = {rule.destination: without(each) for rule, each in exceptions.items()}
    members = {
        each: Member(f"{each} {lookups.kind(rule)}{exceptional.get(rule.destination, '')}", shared_kind(rule))
        for each, rule in rules.items()
    }
    names = named(prefix, members, ALONE)
    return Chains(
        patterns,
        {each: names.get(str(each), INSPECTED) for each in allowing},
        {chain: rules[each] for each, chain in names.items()},
    )


class Member(NamedTuple):
    """What has a chain: the name of the chain if it is alone in it, and what all that share one have alike."""

    name: str
    kind: str


def named(prefix: str, members: Mapping[str, Member], most: int) -> Mapping[str, str]:
    """Return the name of the chain of each member: one of its own, as `most` have, or one that it shares.

    Which members are alone follows from hashes of what they are called, which stays the same when their names
    change.
    """
    ordered = sorted(members, key=_hash)
    found = {each: f"{prefix} {members[each].name}" for each in ordered[:most]}
    shared: dict[tuple[int, str], list[str]] = {}
    for each in ordered[most:]:
        bucket = int.from_bytes(_hash(each)[:4]) % SHARED
        shared.setdefault((bucket, members[each].kind), []).append(each)
    for (bucket, kind), those in shared.items():
        name = f"{prefix} {bucket} {kind} {digest([members[each].name for each in those])}"
        found.update(dict.fromkeys(those, name))
    return found


def shared_kind(rule: Rule) -> str:
    """Return what the rules that share a chain have alike."""
    return f"{'below ' if rule.destination.subtree else ''}{lookups.kind(rule)}"


def without(exceptions: Sequence[str]) -> str:
    """Return what a chain's name says of the patterns that are denied within what its rule allows."""
    return f" without {digest(sorted(exceptions))}" if exceptions else ""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def digest(words: Sequence[str]) -> str:
    """Return a short text that is another one for other words."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def select(chosen: Chains, name: Json) -> Json:
    """Return the matcher that selects the chain of the rule that decides a name. `name` is the input with it."""
    domains: dict[str, list[str]] = {}
    for pattern, rule in chosen.patterns.items():
        chain = DENIED if rule.denies else chosen.names[rule.destination]
        domains.setdefault(chain, []).append(pattern)
    matchers = [
        {"domains": sorted(domains[chain]), "on_match": {"action": action(chain)}} for chain in sorted(domains)
    ]
    kind = "type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher"
    matcher = typed("names", kind, domain_matchers=matchers)
    return {"matcher": {"matcher_tree": {"input": name, "custom_match": matcher}}}


def action(chain: str) -> Json:
    """Return what a matcher does to select a chain."""
    return typed("chain", "type.googleapis.com/google.protobuf.StringValue", value=chain)


def matching_input(kind: str, **config: str) -> Json:
    """Return what a matcher compares."""
    return extension(f"matching.common_inputs.network.v3.{kind}", "input", **config)


def exactly(compared: Json, chosen: Json) -> Json:
    """Return the matcher that selects by what is compared, exactly."""
    return {"matcher_tree": {"input": compared, "exact_match_map": {"map": chosen}}}


def forwarding(chosen: Chains, statistics: str, idle: float, name: str) -> list[Json]:
    """Return the filter chains: each forwards to the host that was named. `name` is the format of its name.

    `idle` is in seconds: for so long nothing need be sent.
    """
    alike = {shared_kind(rule): rule for rule in chosen.rules.values()}
    filters = {kind: lookups.forwarding(rule, statistics, idle, name) for kind, rule in alike.items()}
    return [
        {"name": chain, "filters": filters[shared_kind(rule)]}
        for chain, rule in sorted(chosen.rules.items(), key=operator.itemgetter(0))
    ]


def ending(name: str) -> Json:
    """Return a chain that ends a connection at once, with an alert. Its name tells the record why."""
    response = {"inline_bytes": b64encode(_ACCESS_DENIED).decode()}
    return {"name": name, "filters": [extension("filters.network.direct_response.v3.Config", response=response)]}
