"""How names are looked up, so that one agent's lookups are not in the way of another's.

Below a subtree rule, an agent can invent as many names as it likes, and their server may be slow or silent. So
Envoy looks a name up with one label more: the last number of the agent's address, which no two agents of a /23
share. `fwctl forward`, whom it asks, takes the label for whose share the lookup is, has room for only so many
lookups and new names of each share, and asks for the name itself. A label of an exact name ends with an asterisk.
`SUBTREES` are the names by which it tells other rules apart.

For each source address that it connects from, Envoy has a cluster with a cache for exact names, and another one
for names below subtrees. Each new name makes it go through all names of its cluster, on the main thread.
"""

import json

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Rule
from clawker_fw.stack import container
from clawker_fw.stack.envoy import bounds, messages, usage
from clawker_fw.stack.envoy.messages import HOST, SHARE, Json, extension
from clawker_fw.stack.resources import Resource

FORWARDER, DNS_PORT = "127.0.0.53", 53
"""Where `fwctl forward` listens. No agent reaches a loopback address."""

RESOURCE = Resource("subtrees", "subtrees/subtrees.json")
SUBTREES = container.HOT + RESOURCE.path

NAMED, BELOW = "named", "below"
"""The caches of the names that rules name, and of all below them."""

_FORGOTTEN_AFTER = {NAMED: "20s", BELOW: "1s"}
"""Envoy answers 503 to a request of the very moment at which it forgets the name, so it keeps the names of rules
over an agent's pauses. Of the names below a subtree, an agent can invent any number.
"""

_KINDS = ("guarded", "exempt")


def share() -> Json:
    """Return the filter state that says in whose share a connection's agent is, by the last number of its address.

    It is written as the label that a name gets. No name has such a label: an asterisk is in no host name.
    """
    last = "*%CEL(source.address.split(':')[0].split('.')[3])%"
    return messages.passed_on(SHARE, last, messages.cel_formatter(), factory_key="envoy.string")


def kind(rule: Rule) -> str:
    """Return from which kind of source address Envoy connects for a rule."""
    return _KINDS[rule.allow_private]


def forwarding(rule: Rule, statistics: str, idle: float, name: str, *, opaque: bool = False) -> list[Json]:
    """Return the filters that look up the host that a connection is for, and forward it to its address.

    `name` is the format of the host's name, or the name itself of an `opaque` connection, which is told of while
    it is open as well. `idle` is in seconds: for so long nothing need be sent.
    """
    cache, exact = (BELOW, "") if rule.destination.subtree else (NAMED, "*")
    cluster = f"{kind(rule)} {cache}"
    in_a_share = extension(
        "filters.network.set_filter_state.v3.Config",
        on_new_connection=[messages.state(HOST, f"{name}.%FILTER_STATE({SHARE}:PLAIN)%{exact}")],
    )
    looked_up = extension(
        "filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=_cache(cluster, _FORGOTTEN_AFTER[cache]),
    )
    forwarded = extension(
        "filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=statistics,
        cluster=cluster,
        idle_timeout=messages.duration(idle),
        **(usage.of_opaque(name) if opaque else {}),
    )
    # An address in place of a name is not looked up.
    return [looked_up, forwarded] if rule.host else [in_a_share, looked_up, forwarded]


def _cache(name: str, forgotten_after: str) -> Json:
    """Return the configuration of a cache, which is the same wherever it is used."""
    return {
        "name": name,
        "dns_lookup_family": "V4_ONLY",
        "max_hosts": bounds.CACHED_NAMES,
        "dns_cache_circuit_breaker": {"max_pending_requests": bounds.UNBOUNDED},
        # For so long after its last use, a name is looked up again whenever its TTL ends; then it is forgotten.
        "host_ttl": forgotten_after,
        # For answers without a TTL, as for a name that does not exist.
        "dns_refresh_rate": "1s",
        # A name that is in use leads where it led before until it is looked up again: after 5 s at least
        # by default, whatever its TTL is.
        "dns_min_refresh_rate": "1s",
        "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "10s"},
    }


def subtrees(policy: Policy) -> bytes:
    """Return the file with the names by which the forwarder tells rules apart."""
    rules = policy.rules.rules
    names = {rule.destination.name for rule in rules if rule.destination.subtree and not rule.denies}
    return json.dumps({"names": sorted(names)}, separators=(",", ":")).encode()
