"""Filter chains: each rule has one, so that removing a rule ends only its connections.

Envoy drains the connections of a filter chain only if it is removed or renamed (measured; docs/how-it-works.md).
The matcher that selects a chain may change freely.
"""

import functools
import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.observing import PUBLIC_NAME
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.upstream import Proxy
from clawker_fw.stack.envoy import lookups
from clawker_fw.stack.envoy.messages import Json, extension, typed

ALONE, SHARED = 10_000, 1_000
"""How many rules of a port and protocol have a chain each, and how many chains all others share, by hash.

A chain costs Envoy 0.1 ms at each change of the rules, and 8 KB (docs/how-it-works.md).
"""

DENIED = "denied"
"""The chain that ends connections to denied names below an allowed one."""

REFUSED = "refused"
"""The chain for all other names without a rule, and for TLS without a server name."""

OBSERVED = "*"
"""Stands for a rule in the names of the chains for names without one, while they pass."""

INSPECTED = "inspected"
"""The chain for inspected TLS."""

_ACCESS_DENIED = bytes((0x15, 3, 3, 0, 2, 2, 49))
"""A TLS 1.2 record with the fatal alert `access_denied` (RFC 8446, sections 5.1 and 6.2), which clients report."""


@dataclass(frozen=True, slots=True)
class Chains:
    """The chains of a protocol and port: the deciding rule of each pattern, and each rule's chain.

    A rule is identified by its destination. `rules` has one per forwarding chain, as those that share it are
    alike. `observed` is the chain of names without a rule, if they pass, except the `unobserved` patterns.
    """

    patterns: Mapping[str, Rule]
    names: Mapping[Destination, str]
    rules: Mapping[str, Rule]
    observed: str = ""
    unobserved: Sequence[str] = ()


def chains(prefix: str, policy: Policy, protocol: Protocol, port: int) -> Chains:
    """Return the chains for a protocol and port.

    The chain of names without a rule is another one whenever a name is denied that may have passed through it.
    """
    chains = of_rules(prefix, policy.patterns(protocol, port), policy.exceptions(protocol, port))
    rule, observing = policy.observed.get((protocol, port)), policy.rules.observing
    if rule is None or observing is None:
        return chains
    denied = [str(rule) for rule in (*policy.rules.rules, *observing.never) if rule.denies]
    name = f"{prefix} {OBSERVED}{without(denied)}"
    unobserved = [pattern for pattern in policy.unobserved if pattern not in chains.patterns]
    return replace(chains, rules={**chains.rules, name: rule}, observed=name, unobserved=unobserved)


def of_rules(
    prefix: str, patterns: Mapping[str, Rule], exceptions: Mapping[Rule, Sequence[str]] = MappingProxyType({})
) -> Chains:
    """Return the chains, with the name of each rule's chain.

    A shared chain's name has the properties that its rules share. A rule whose deny exceptions change moves to
    another chain, because some of its connections may be denied now. All inspected rules have one chain, which
    sees requests.
    """
    allowing = {rule.destination: rule for rule in patterns.values() if not rule.denies}
    rules = {str(destination): rule for destination, rule in allowing.items() if not rule.paths}
    exceptional = {rule.destination: without(patterns) for rule, patterns in exceptions.items()}
    members = {
        pattern: Member(
            f"{pattern} {lookups.kind(rule)}{exceptional.get(rule.destination, '')}", shared_kind(rule)
        )
        for pattern, rule in rules.items()
    }
    names = named(prefix, members, ALONE)
    return Chains(
        patterns,
        {destination: names.get(str(destination), INSPECTED) for destination in allowing},
        {chain: rules[name] for name, chain in names.items()},
    )


class Member(NamedTuple):
    """A candidate for a chain: its chain's name if unshared, and the `kind` that all in a shared chain have."""

    name: str
    kind: str


def named(prefix: str, members: Mapping[str, Member], most: int) -> Mapping[str, str]:
    """Return the name of each member's chain. Hashes decide which `most` members have one alone."""
    ordered = sorted(members, key=_hash)
    names = {member: f"{prefix} {members[member].name}" for member in ordered[:most]}
    shared: dict[tuple[int, str], list[str]] = {}
    for member in ordered[most:]:
        bucket = int.from_bytes(_hash(member)[:4]) % SHARED
        shared.setdefault((bucket, members[member].kind), []).append(member)
    for (bucket, kind), those in shared.items():
        name = f"{prefix} {bucket} {kind} {digest([members[member].name for member in those])}"
        names.update(dict.fromkeys(those, name))
    return names


def shared_kind(rule: Rule) -> str:
    """Return the properties that the rules of a shared chain have in common."""
    return f"{'below ' if rule.destination.subtree else ''}{lookups.kind(rule)}"


def without(exceptions: Sequence[str]) -> str:
    """Return the part of a chain's name for the patterns that are denied below its rule."""
    return f" without {digest(sorted(exceptions))}" if exceptions else ""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def digest(words: Sequence[str]) -> str:
    """Return a short digest of some words."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def select(chosen: Chains, name: Json) -> Json:
    """Return the matcher that selects the chain of a name's deciding rule. `name` is the input with the name."""
    domains: dict[str, list[str]] = {}
    for pattern, rule in chosen.patterns.items():
        chain = DENIED if rule.denies else chosen.names[rule.destination]
        domains.setdefault(chain, []).append(pattern)
    if chosen.unobserved:
        domains[REFUSED] = [*chosen.unobserved]
    matchers = [
        {"domains": sorted(domains[chain]), "on_match": {"action": action(chain)}} for chain in sorted(domains)
    ]
    kind = "type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher"
    matcher = typed("names", kind, domain_matchers=matchers)
    tree: Json = {"matcher_tree": {"input": name, "custom_match": matcher}}
    if chosen.observed:
        passing = matching(name, [PUBLIC_NAME], {"action": action(chosen.observed)})
        tree["on_no_match"] = {"matcher": {**passing, "on_no_match": {"action": action(REFUSED)}}}
    return {"matcher": tree}


def matching(compared: Json, expressions: Sequence[str], chosen: Json) -> Json:
    """Return the matcher that selects by regular expressions, all of which must match."""
    matches = ({"safe_regex": {"regex": regex, "google_re2": {}}} for regex in expressions)
    predicates = [{"single_predicate": {"input": compared, "value_match": matcher}} for matcher in matches]
    predicate = {"and_matcher": {"predicate": predicates}} if len(predicates) > 1 else predicates[0]
    return {"matcher_list": {"matchers": [{"predicate": predicate, "on_match": chosen}]}}


def action(chain: str) -> Json:
    """Return the matcher's action that selects a chain."""
    return typed("chain", "type.googleapis.com/google.protobuf.StringValue", value=chain)


def matching_input(kind: str, **config: str) -> Json:
    """Return a matcher's input."""
    return extension(f"matching.common_inputs.network.v3.{kind}", "input", **config)


def exactly(compared: Json, chosen: Json) -> Json:
    """Return the matcher that selects by exact value."""
    return {"matcher_tree": {"input": compared, "exact_match_map": {"map": chosen}}}


def forwarding(
    chosen: Chains,
    statistics: str,
    idle: float,
    name: str,
    log: Json | None = None,
    *,
    proxy: Proxy | None = None,
    absolute: bool = False,
) -> list[Json]:
    """Return the filter chains. Each forwards to the host in the format `name`. `idle` is in seconds.

    `log` are the fields with which the chain of names without a rule logs connections. `proxy` and `absolute` are
    as in `lookups.forwarding`.
    """
    way = functools.partial(lookups.forwarding, proxy=proxy, absolute=absolute)
    alike = {shared_kind(rule): rule for rule in chosen.rules.values()}
    filters = {kind: way(rule, statistics, idle, name) for kind, rule in alike.items()}
    ways = {chain: filters[shared_kind(rule)] for chain, rule in chosen.rules.items()}
    if chosen.observed:
        rule = chosen.rules[chosen.observed]
        ways[chosen.observed] = way(rule, statistics, idle, name, log=log)
    return [{"name": chain, "filters": ways[chain]} for chain in sorted(ways)]


def ending(name: str) -> Json:
    """Return a chain that ends a connection at once with an alert. Its name is the reason in the log."""
    response = {"inline_bytes": b64encode(_ACCESS_DENIED).decode()}
    return {"name": name, "filters": [extension("filters.network.direct_response.v3.Config", response=response)]}
