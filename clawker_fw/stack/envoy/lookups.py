"""Name lookups, with separate limits per agent.

Below a subtree rule, an agent can invent names, and their server may be slow or silent. So Envoy looks up a name
with an extra label: the last number of the agent's address, which no two agents of a /23 share. `fwctl forward`
limits the lookups and new names of each such share, and resolves the name without the label. The label of an exact
name ends with an asterisk. `SUBTREES` are the names of the other rules.

For each source address, Envoy has a cluster with a cache for exact names, and another one for names below
subtrees. Each new name makes its main thread go through all names of the cluster.
"""

import json

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.upstream import Proxy
from clawker_fw.stack import container
from clawker_fw.stack.envoy import bounds, messages, upstream
from clawker_fw.stack.envoy.messages import HOST, SHARE, Json, extension
from clawker_fw.stack.resources import Resource

FORWARDER, DNS_PORT = "127.0.0.53", 53
"""Where `fwctl forward` listens. Agents can't reach a loopback address."""

RESOURCE = Resource("subtrees", "subtrees/subtrees.json")
SUBTREES = container.HOT + RESOURCE.path

_KINDS = ("guarded", "exempt")


def share() -> Json:
    """Return the filter state with an agent's share, as a label that no host name has."""
    last = "*%CEL(source.address.split(':')[0].split('.')[3])%"
    return messages.passed_on(SHARE, last, messages.cel_formatter(), factory_key="envoy.string")


def kind(rule: Rule) -> str:
    """Return the kind of source address that Envoy uses for a rule."""
    return "proxied" if rule.proxied else _KINDS[rule.allow_private]


def forwarding(
    rule: Rule,
    statistics: str,
    idle: float,
    name: str,
    *,
    log: Json | None = None,
    proxy: Proxy | None = None,
    absolute: bool = False,
) -> list[Json]:
    """Return the filters that resolve a connection's host and forward the connection.

    `name` is the host's name, or its format. `idle` is in seconds. `log` are fields of the TCP proxy for its own
    log. Through the upstream `proxy`, nothing is resolved; plain HTTP is `absolute`, everything else a tunnel.
    """
    fields: Json = {"stat_prefix": statistics, "idle_timeout": messages.duration(idle), **(log or {})}
    if rule.proxied and proxy:
        return [upstream.forwarding(proxy, rule.host or name, fields, absolute=absolute)]
    # Envoy answers 503 to a request at the moment that it forgets the name. So it keeps names of rules during an
    # agent's pauses, but not the names below a subtree, which agents can invent.
    cache, exact, kept = ("below", "", "1s") if rule.destination.subtree else ("named", "*", "20s")
    cluster = f"{kind(rule)} {cache}"
    in_a_share = extension(
        "filters.network.set_filter_state.v3.Config",
        on_new_connection=[messages.state(HOST, f"{name}.%FILTER_STATE({SHARE}:PLAIN)%{exact}")],
    )
    looked_up = extension(
        "filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=_cache(cluster, kept),
    )
    forwarded = extension("filters.network.tcp_proxy.v3.TcpProxy", cluster=cluster, **fields)
    # An address in place of a name is not looked up.
    return [looked_up, forwarded] if rule.host else [in_a_share, looked_up, forwarded]


def _cache(name: str, forgotten_after: str) -> Json:
    """Return the configuration of a cache, which must be the same in each use."""
    return {
        "name": name,
        "dns_lookup_family": "V4_ONLY",
        "max_hosts": bounds.CACHED_NAMES,
        "dns_cache_circuit_breaker": {"max_pending_requests": bounds.UNBOUNDED},
        # This long after its last use, a name is looked up again whenever its TTL expires; then it is forgotten.
        "host_ttl": forgotten_after,
        # For answers without a TTL, such as for a name that does not exist.
        "dns_refresh_rate": "1s",
        # A name in use keeps its address until the next lookup: after at least 5 s by default, whatever its TTL.
        "dns_min_refresh_rate": "1s",
        "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "10s"},
    }


def subtrees(policy: Policy) -> bytes:
    """Return the file with the names of subtree rules for the forwarder, and the end of observing for the page."""
    rules, observing = policy.rules.rules, policy.rules.observing
    names = {rule.destination.name for rule in rules if rule.destination.subtree and not rule.denies}
    until = {"observe_until": observing.until} if observing else {}
    return json.dumps({"names": sorted(names), **until}, separators=(",", ":")).encode()
