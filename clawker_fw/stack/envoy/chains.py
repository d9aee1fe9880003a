"""Filter chains: each rule has its own, so that a removed rule ends its connections and no others.

A subtree rule has one for each share of lookups (`lookups`). Envoy drains the connections of a filter chain that
is removed or renamed, and of no other (measured; docs/how-it-works.md). The matcher that selects among the chains
may change freely.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

from clawker_fw.rules.schema import Rule
from clawker_fw.stack.envoy import lookups
from clawker_fw.stack.envoy.messages import Json, duration, extension, typed

MOST = 256
"""Up to so many rules a port and protocol have a chain each; beyond it, rules share that many chains by hash.

Half of them are for exact names, and half for subtrees, which take one for each share of lookups.
"""


def names(prefix: str, rules: tuple[Rule, ...]) -> dict[Rule, str]:
    """Return the name of each rule's chain, for the rules of one port and protocol.

    Alone in its chain, a removed rule takes the chain with it. A shared chain is named after what shares it: it
    gets another name, and only the connections of those who shared it are drained.
    """
    if len(rules) <= MOST:
        return {rule: f"{prefix} {rule.destination} {_kind(rule)}" for rule in rules}
    shared: dict[str, list[Rule]] = {}
    for rule in rules:
        buckets = MOST // 2 // len(lookups.shares(rule))
        bucket = hashlib.sha256(str(rule.destination).encode()).digest()[0] % buckets
        below = " below" if rule.destination.subtree else ""
        shared.setdefault(f"{prefix} {bucket}{below} {_kind(rule)}", []).append(rule)
    found: dict[Rule, str] = {}
    for chain, members in shared.items():
        sharing = json.dumps([str(each.destination) for each in members])
        found |= dict.fromkeys(members, f"{chain} {hashlib.sha256(sharing.encode()).hexdigest()[:16]}")
    return found


def _kind(rule: Rule) -> str:
    return "exempt" if rule.allow_private else "guarded"


def by_name(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Return each pattern (`a.test`, `*.a.test`) with the rule that decides it; an exact rule comes first."""
    patterns: dict[str, Rule] = {}
    for rule in sorted(rules, key=lambda rule: rule.destination.subtree):
        patterns.setdefault(rule.destination.name, rule)
        if rule.destination.subtree:
            patterns[f"*.{rule.destination.name}"] = rule
    return patterns


def select(chains: Mapping[Rule, str], name: Json, source: Json, after: str = "") -> Json:
    """Return the matcher that selects the chain of the rule that decides a name. `name` is the input with it.

    `source` is the input with the agent's address, and `after` the expression for what follows the address.
    """
    rules = {chain: rule for rule, chain in chains.items()}
    patterns: dict[str, list[str]] = {}
    for pattern, rule in by_name(chains).items():
        patterns.setdefault(chains[rule], []).append(pattern)
    matcher = typed(
        "names",
        "type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher",
        domain_matchers=[
            {"domains": sorted(domains), "on_match": _by_share(rules[chain], chain, source, after)}
            for chain, domains in sorted(patterns.items())
        ],
    )
    return {"matcher": {"matcher_tree": {"input": name, "custom_match": matcher}}}


def _by_share(rule: Rule, chain: str, source: Json, after: str) -> Json:
    """Return what to do for a rule: its chain, or the one for the last digit of the agent's address."""
    first, *others = lookups.shares(rule)
    if not others:
        return {"action": action(_chain(chain, first))}
    matchers = [
        {
            "predicate": {
                "single_predicate": {
                    "input": source,
                    "value_match": {"safe_regex": {"regex": f".*{share}{after}", "google_re2": {}}},
                }
            },
            "on_match": {"action": action(_chain(chain, share))},
        }
        for share in (first, *others)
    ]
    return {"matcher": {"matcher_list": {"matchers": matchers}}}


def _chain(chain: str, share: str) -> str:
    return chain if share == lookups.NAMED else f"{chain} {share}"


def action(chain: str) -> Json:
    """Return what a matcher does to select a chain."""
    return typed("chain", "type.googleapis.com/google.protobuf.StringValue", value=chain)


def matching_input(kind: str, **config: str) -> Json:
    """Return what a matcher compares."""
    return extension("input", f"matching.common_inputs.network.v3.{kind}", **config)


def forwarding(chains: Mapping[Rule, str], statistics: str, idle: float) -> list[Json]:
    """Return the filter chains: each forwards to the host that was named, on its rules' port.

    `idle` is in seconds: for so long nothing need be sent.
    """
    rules = {chain: rule for rule, chain in chains.items()}
    return [
        {"name": _chain(chain, share), "filters": _filters(rule, share, statistics, idle)}
        for chain, rule in sorted(rules.items(), key=lambda each: each[0])
        for share in lookups.shares(rule)
    ]


def _filters(rule: Rule, share: str, statistics: str, idle: float) -> list[Json]:
    return [
        extension(
            "envoy.filters.network.sni_dynamic_forward_proxy",
            "filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
            port_value=rule.port,
            dns_cache_config=lookups.cache(share),
        ),
        extension(
            "envoy.filters.network.tcp_proxy",
            "filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix=statistics,
            cluster=lookups.cluster_of(rule, share),
            idle_timeout=duration(idle),
        ),
    ]
