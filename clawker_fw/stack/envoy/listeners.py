"""Envoy's listeners: one per port, with a filter chain per TLS rule and one for plain HTTP.

With this layout, an update cuts only the connections that it concerns (measured; docs/how-it-works.md): a new port
is a new listener, a new rule is a new filter chain, and the matcher may change freely.

A listener at a virtual address stands for one name, whatever an agent sends. A rule for tcp or ssh has its own
listeners, so removing it ends only its connections, and hosts can't be confused. Every port of the rule has one,
because Envoy replaces a listener whose ports change, and ends its connections. If there are many ports, a rule has
one for all, because a listener takes 0.1 MB. `datagrams` has the listeners for UDP.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.stack.envoy import bounds, chains, http, lookups, messages, refusals, tls_interception, usage
from clawker_fw.stack.envoy.messages import HOST, HOST_NAME, PORT, SOURCE, Json, extension
from clawker_fw.stack.envoy.telemetry import CLIENT, NAME, Reporting, Serving
from clawker_fw.stack.envoy.tls_interception import SERVER_NAME

_OPAQUE = "tcp"

MOST_APART = 256
"""Up to this many ports of rules for tcp and ssh have their own listener. If there are more, every rule has
one."""


def listeners(serving: Serving) -> list[Json]:
    """Return a listener per port, and the internal ones if a rule allows HTTP.

    They use only Envoy's address on the agent network, so the egress network can't connect.
    """
    policy, shared = serving.policy, serving.addresses.shared
    ports = ((port, chains.chains("tls", policy, Protocol.HTTPS, port)) for port in policy.rules.ports)
    return [
        *(_named(serving, f"port-{port}", shared, port, chosen) for port, chosen in ports),
        *http.listener(serving),
        *tls_interception.listener(serving),
        *([serving.reporting.listener()] if serving.reporting else []),
    ]


def virtual(serving: Serving) -> Iterator[Json]:
    """Yield the listeners at virtual addresses."""
    served = serving.policy.allowed_at(serving.addresses.virtual)
    apart = sum(protocol is Protocol.TCP for allowed in served.values() for protocol, _ in allowed) <= MOST_APART
    for name, allowed in served.items():
        opaque = {port: rule for (transport, port), rule in allowed.items() if transport is Protocol.TCP}
        for rule in dict.fromkeys(opaque.values()):
            ports = [port for port, other in opaque.items() if other == rule]
            for together in [[port] for port in ports] if apart else [ports]:
                yield _forwarding(serving, name, rule, together)
        for port in sorted({port for transport, port in allowed if not transport.opaque}):
            https = allowed.get((Protocol.HTTPS, port))
            chosen = chains.of_rules("tls", {name: https} if https else {})
            yield _named(serving, f"{name} port-{port}", serving.addresses.virtual[name], port, chosen)


def _from_agents(name: str, statistics: str, address: IPv4Address, ports: Sequence[int], **fields: object) -> Json:
    """Return a listener to which agents connect. A draining Envoy stops these, but not internal ones."""
    first, *others = ({"address": messages.socket(str(address), port)} for port in ports)
    return messages.listener(
        name,
        statistics,
        traffic_direction="INBOUND",
        per_connection_buffer_limit_bytes=bounds.BUFFER,
        **bounds.watched(),
        **first,
        **({"additional_addresses": others} if others else {}),
        **fields,
    )


def _named(serving: Serving, name: str, address: IPv4Address, port: int, chosen: chains.Chains) -> Json:
    return _from_agents(
        name,
        f"port-{port}",
        address,
        [port],
        listener_filters_timeout=f"{bounds.HELLO_SECONDS}s",
        access_log=refusals.of_listener(serving),
        listener_filters=[
            extension("filters.listener.tls_inspector.v3.TlsInspector"),
            _noted(port, serving.reporting),
        ],
        filter_chain_matcher=_by_protocol(chosen),
        filter_chains=[
            {"name": http.CHAIN, "filters": [http.connection_manager(serving)]},
            *chains.forwarding(
                chosen,
                f"tls-{port}",
                serving.limits.idle,
                SERVER_NAME,
                refusals.of_observed(),
                proxy=serving.policy.rules.proxy,
            ),
            *([tls_interception.chain(serving)] if chains.INSPECTED in chosen.names.values() else []),
            *([chains.ending(chains.DENIED)] if any(rule.denies for rule in chosen.patterns.values()) else []),
            chains.ending(chains.REFUSED),
        ],
    )


def _noted(port: int, reporting: Reporting | None) -> Json:
    client = messages.passed_on(CLIENT, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", factory_key="envoy.string")
    return extension(
        "filters.listener.set_filter_state.v3.Config",
        on_accept=[
            messages.passed_on(PORT, str(port)),
            messages.passed_on(SOURCE, "%DOWNSTREAM_REMOTE_ADDRESS%", factory_key="envoy.string"),
            lookups.share(),
            *([client] if reporting else []),
        ],
    )


def _by_protocol(tls_chains: chains.Chains) -> Json:
    """Return the matcher: TLS by its server name (RFC 6066), everything else is HTTP."""
    refused: Json = {"action": chains.action(chains.REFUSED)}
    by_protocol: Json = {"raw_buffer": {"action": chains.action(http.CHAIN)}, "tls": refused}
    if tls_chains.rules or tls_chains.names:
        server_name = chains.matching_input("ServerNameInput")
        by_name = chains.matching(server_name, HOST_NAME, chains.select(tls_chains, server_name))
        by_protocol["tls"] = {"matcher": {**by_name, "on_no_match": refused}}
    return chains.exactly(chains.matching_input("TransportProtocolInput"), by_protocol)


def _forwarding(serving: Serving, name: str, rule: Rule, ports: list[int]) -> Json:
    noted = extension(
        "filters.network.set_filter_state.v3.Config",
        on_new_connection=[
            messages.state(HOST, rule.leads_to(name, str(serving.addresses.machine))),
            messages.state(PORT, "%DOWNSTREAM_LOCAL_PORT%"),
            lookups.share(),
            *([messages.state(NAME, name, factory_key="envoy.string")] if serving.reporting else []),
        ],
    )
    proxy = serving.policy.rules.proxy
    log = usage.of_opaque(name)
    forwarded = lookups.forwarding(rule, _OPAQUE, serving.limits.idle, name, log=log, proxy=proxy)
    return _from_agents(
        f"{_OPAQUE} {name}:{rule.written_port if len(ports) > 1 else ports[0]}",
        f"port-{_OPAQUE}",  # whose connections `fwctl drain` counts
        serving.addresses.virtual[name],
        sorted(ports),
        access_log=refusals.of_opaque(name, serving),
        filter_chains=[{"name": _OPAQUE, "filters": [noted, *forwarded]}],
    )
