"""UDP: every port of a rule has a listener at the name's virtual address, and a cluster for the host.

Envoy's UDP sessions end only when their cluster or listener is removed (measured). So a cluster's name contains
every relevant property of its rule.

If the name has no address, there would be no session and no record of the datagrams. So the cluster is combined
with an unhealthy one that leads nowhere. For every datagram to an unhealthy host, Envoy looks for a better one, so
no session stays there.
"""

from collections.abc import Iterator

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.stack.envoy import bounds, messages, refusals, usage
from clawker_fw.stack.envoy.messages import TYPES, Json, extension, typed
from clawker_fw.stack.envoy.telemetry import Serving, looked_up

_STATISTICS = "udp"


def clusters(serving: Serving) -> Iterator[Json]:
    """Yield the clusters. Their source address selects the routing table, which limits what they reach."""
    names, addresses = False, serving.addresses
    for name, port, rule in _forwarded(serving.policy):
        cluster = _cluster(name, port, rule)
        naming = {"alt_stat_name": name} if serving.reporting else {}  # a session's record contains it as the name
        room = {"circuit_breakers": {"thresholds": [{"max_connections": bounds.UNBOUNDED}]}}
        host = messages.socket(rule.leads_to(name, str(addresses.machine)), port)
        bound = messages.source(str(addresses.exempt if rule.allow_private else addresses.guarded))
        if rule.host:
            yield {**_leading(cluster, host), **naming, "type": "STATIC", **bound, **room}
            continue
        names = True
        yield {**_leading(f"{cluster}{_HOST}", host), **naming, **looked_up(), **bound}
        # Envoy uses the first of the two with a healthy host, otherwise any.
        two = [f"{cluster}{_HOST}", _NOWHERE]
        kind = extension("clusters.aggregate.v3.ClusterConfig", clusters=two)
        first = {"lb_policy": "CLUSTER_PROVIDED", "cluster_type": kind}
        yield {"@type": _CLUSTER, "name": cluster, **naming, **first, **room}
    if names:
        nobody = messages.socket(*refusals.NOWHERE)
        alone = messages.source("127.0.0.1")  # an unconnected socket accepts datagrams from any sender
        yield {**_leading(_NOWHERE, nobody, health_status="UNHEALTHY"), "type": "STATIC", **alone}


_CLUSTER = f"{TYPES}.config.cluster.v3.Cluster"
_NOWHERE, _HOST = "udp nowhere", " host"


def _leading(cluster: str, host: Json, **state: str) -> Json:
    return {"@type": _CLUSTER, "name": cluster, **messages.endpoint(cluster, host, **state)}


def listeners(serving: Serving) -> Iterator[Json]:
    """Yield the listeners."""
    for name, port, rule in _forwarded(serving.policy):
        place = {"protocol": "UDP", "address": str(serving.addresses.virtual[name]), "port_value": port}
        yield messages.listener(
            f"udp {name}:{port}",
            _STATISTICS,
            traffic_direction="INBOUND",
            address={"socket_address": place},
            udp_listener_config={"downstream_socket_config": _SOCKET},
            listener_filters=[_proxy(serving, name, _cluster(name, port, rule))],
        )


_SOCKET = {"max_rx_datagram_size": str(bounds.DATAGRAM)}  # numbers of 64 bits are text in canonical JSON


def _proxy(serving: Serving, name: str, cluster: str) -> Json:
    kind = f"{TYPES}.extensions.filters.udp.udp_proxy.v3"
    route = typed("route", f"{kind}.Route", cluster=cluster)
    return typed(
        "envoy.filters.udp_listener.udp_proxy",
        f"{kind}.UdpProxyConfig",
        stat_prefix=_STATISTICS,
        matcher={"on_no_match": {"action": route}},
        idle_timeout=messages.duration(min(serving.limits.idle, bounds.SESSION_SECONDS)),
        upstream_socket_config=_SOCKET,
        access_log=[*refusals.of_datagrams(name, serving.reporting), usage.of_datagrams(name)],
        access_log_options={"access_log_flush_interval": messages.duration(refusals.SESSION_LOGGED_AFTER)},
    )


def _forwarded(policy: Policy) -> Iterator[tuple[str, int, Rule]]:
    for name, allowed in policy.allowed_at(policy.opaque).items():
        for (transport, port), rule in allowed.items():
            if transport is Protocol.UDP:
                yield name, port, rule


def _cluster(name: str, port: int, rule: Rule) -> str:
    where = f" at {rule.host}" if rule.host else ""
    return f"udp {name}:{port}{where} {'exempt' if rule.allow_private else 'guarded'}"
