"""How names are looked up, so that one agent's lookups are not in the way of another's.

Below a subtree rule, an agent can invent as many names as it likes, and their server may be slow or silent. So
they are looked up in a cache for those agents whose addresses have the same last digit. All other names share
one cache: a rule of an exact name takes one lookup. Envoy has a cluster for each cache, and each source address
that it connects from.

All caches ask `fwctl forward`, which knows them by the ports that they ask from, and has room for only so many
lookups of each, and below each rule: `SUBTREES` are the names by which it tells rules apart.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.schema import Rule
from clawker_fw.stack import container
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.envoy.messages import TYPES, Json, typed
from clawker_fw.stack.resources import Resource

SHARES = 10
"""Agents are told apart by the last digit of their addresses: Envoy has no other way that is as cheap."""

FORWARDER, DNS_PORT = "127.0.0.53", 53
"""Where `fwctl forward` listens. No agent reaches a loopback address."""

RESOURCE = Resource("subtrees", "subtrees/subtrees.json")
SUBTREES = container.HOT + RESOURCE.path

TRIES = 5
"""How often c-ares asks. The forwarder takes a repetition for what it is."""

NAMED = "named"
"""The cache of the names that rules name."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One of Envoy's clusters. From the source address of an `exempt` one, private addresses can be reached."""

    name: str
    exempt: bool
    cache: Json


def shares(rule: Rule) -> tuple[str, ...]:
    """Return whose lookups of a rule are kept apart: agents by their last digit, or nobody's."""
    return tuple(map(str, range(SHARES))) if rule.destination.subtree else (NAMED,)


def cluster_of(rule: Rule, share: str) -> str:
    """Return the name of the cluster for a rule and a share of agents."""
    return _cluster(share, exempt=rule.allow_private)


def clusters() -> Iterator[Cluster]:
    """Yield all clusters."""
    for each in (NAMED, *map(str, range(SHARES))):
        for exempt in (False, True):
            yield Cluster(_cluster(each, exempt=exempt), exempt, cache(each))


def cache(name: str) -> Json:
    """Return the configuration of a cache, which is the same wherever it is used."""
    entries, lookups = (
        (bounds.CACHED_NAMES, bounds.CACHED_NAMES)
        if name == NAMED
        else (bounds.CACHED_NAMES // SHARES, bounds.LOOKUPS)
    )
    return {
        "name": name,
        "dns_lookup_family": "V4_ONLY",
        "max_hosts": entries,
        "dns_cache_circuit_breaker": {"max_pending_requests": lookups},
        # A name that nobody has asked for lately is forgotten when its TTL ends; until then it is looked up again.
        "host_ttl": "1s",
        # For answers without a TTL, as for a name that does not exist.
        "dns_refresh_rate": "1s",
        "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "10s"},
    }


def resolver() -> Json:
    """Return how names are looked up by every cache. It is set once: thousands of filters name a cache."""
    return typed(
        "envoy.network.dns_resolver.cares",
        f"{TYPES}.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        resolvers=[{"socket_address": {"address": FORWARDER, "port_value": DNS_PORT}}],
        dns_resolver_options={"no_default_search_domain": True},
        # A cache waits for 5 s in all, and the forwarder answers by then. c-ares asks again after 1 s, but after
        # 250 ms once answers have been quick, and each time it waits about twice as long: with fewer tries, it
        # would give up before.
        query_timeout_seconds="1",
        query_tries=TRIES,
    )


def subtrees(policy: Policy) -> bytes:
    """Return the file with the names by which the forwarder tells rules apart."""
    rules = policy.rules.rules
    names = {name for rule in rules if rule.destination.subtree and not rule.denies for name in rule.names}
    return json.dumps({"names": sorted(names)}, separators=(",", ":")).encode()


def _cluster(cache_name: str, *, exempt: bool) -> str:
    return f"{'exempt' if exempt else 'guarded'} {cache_name}"
