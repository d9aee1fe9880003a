"""How names are looked up, so that one agent's lookups are not in the way of another's.

Below a subtree rule, an agent can invent as many names as it likes, and their server may be slow or silent. So
they are looked up in a cache for those agents whose addresses have the same last digit, with room for only so many
lookups at once. All other names share one cache without such a bound: of them, there are no more than rules. Envoy
has a cluster for each cache, and each source address that it connects from.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from clawker_fw.rules.schema import Rule
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.envoy.messages import TYPES, Json, typed

SHARES = 10
"""Agents are told apart by the last digit of their addresses: Envoy has no other way that is as cheap."""

NAMED = "named"
"""The cache of the names that rules name."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One of Envoy's clusters. From the source address of an `exempt` one, private addresses can be reached."""

    name: str
    exempt: bool
    cache: Json


def shares(rule: Rule) -> tuple[str, ...]:
    """Return the caches in which a rule's names are looked up: one for each last digit, or one for everybody."""
    return tuple(map(str, range(SHARES))) if rule.destination.subtree else (NAMED,)


def cluster_of(rule: Rule, share: str) -> str:
    """Return the name of the cluster for a rule and one of its caches."""
    return _cluster(share, exempt=rule.allow_private)


def clusters() -> Iterator[Cluster]:
    """Yield all clusters."""
    for share in (NAMED, *map(str, range(SHARES))):
        for exempt in (False, True):
            yield Cluster(_cluster(share, exempt=exempt), exempt, cache(share))


def cache(share: str) -> Json:
    """Return the configuration of a cache, which is the same wherever it is used."""
    entries, lookups = (
        (bounds.CACHED_NAMES, bounds.CACHED_NAMES)
        if share == NAMED
        else (bounds.CACHED_NAMES // SHARES, bounds.LOOKUPS)
    )
    return {
        "name": share,
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
        dns_resolver_options={"no_default_search_domain": True},
        # A cache waits for 5 s in all. c-ares asks again after 2 s, but after 250 ms once answers have been
        # quick, and each time it waits about twice as long. With fewer tries, a late answer would be missed.
        query_timeout_seconds="2",
        query_tries=5,
    )


def _cluster(share: str, *, exempt: bool) -> str:
    return f"{'exempt' if exempt else 'guarded'} {share}"
