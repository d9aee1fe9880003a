"""Envoy's listeners: one a port, with one filter chain a TLS rule and one chain for plain HTTP.

Built as values and serialised, never templated. The layout keeps an update from cutting what it does not concern
(measured; docs/how-it-works.md): a port added or removed is a listener added or removed, a rule added or removed
is a filter chain, and the matcher may change freely. Field names are those of the Envoy v3 API reference.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.stack.envoy import bounds, chains, http, lookups, refusals, tls_interception
from clawker_fw.stack.envoy.messages import HOST_NAME, PORT, SOURCE, TYPES, Json, extension, passed_on
from clawker_fw.stack.envoy.telemetry import CLIENT, Reporting
from clawker_fw.stack.envoy.tls_interception import SERVER_NAME


def listeners(
    policy: Policy,
    address: IPv4Address,
    idle: float,
    reporting: Reporting | None = None,
    checkers: tuple[IPv4Address, ...] = (),
) -> list[Json]:
    """Return a listener for each port, and those that HTTP requests go through if a rule allows any.

    `address` is Envoy's on the agent network: from the way out nobody comes in. `idle` is for how many seconds
    nothing need be sent. From the addresses `checkers`, CoreDNS checks whether agents are refused.
    """
    ports = [
        at(
            ListenerPlace(f"port-{port}", address, port, checkers),
            chains.chains("tls", policy, Protocol.HTTPS, port),
            idle,
            reporting,
        )
        for port in policy.rules.ports
    ]
    return [
        *ports,
        *http.listener(policy, idle, reporting),
        *tls_interception.listener(policy, idle, reporting),
        *([reporting.listener()] if reporting else []),
    ]


@dataclass(frozen=True, slots=True)
class ListenerPlace:
    """Where a listener listens, its name, and from where CoreDNS checks that it refuses agents."""

    name: str
    address: IPv4Address
    port: int
    checkers: tuple[IPv4Address, ...] = ()


def at(place: ListenerPlace, tls_chains: chains.Chains, idle: float, reporting: Reporting | None = None) -> Json:
    """Return the listener at an address and port for hosts that are named."""
    return {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": place.name,
        "stat_prefix": f"port-{place.port}",
        # Agents come in here. A draining Envoy stops these listeners, and none that they lead to.
        "traffic_direction": "INBOUND",
        "per_connection_buffer_limit_bytes": bounds.BUFFER,
        **bounds.watched(),
        "listener_filters_timeout": f"{bounds.HELLO_SECONDS}s",
        "address": {"socket_address": {"address": str(place.address), "port_value": place.port}},
        "access_log": refusals.of_listener(reporting, place.checkers),
        "listener_filters": [
            extension("filters.listener.tls_inspector.v3.TlsInspector"),
            _noted(place.port, reporting),
        ],
        "filter_chain_matcher": _by_protocol(tls_chains),
        "filter_chains": [
            {
                "name": http.CHAIN,
                "filters": [http.connection_manager(idle, reporting, place.checkers)],
            },
            *chains.forwarding(tls_chains, f"tls-{place.port}", idle, SERVER_NAME),
            *([tls_interception.chain(idle, reporting)] if tls_chains.inspecting else []),
            *([chains.ending(chains.DENIED)] if tls_chains.denying else []),
            chains.ending(chains.REFUSED),
        ],
    }


def _noted(port: int, reporting: Reporting | None) -> Json:
    """Return the filter that notes who has connected, and to which port."""
    return extension(
        "filters.listener.set_filter_state.v3.Config",
        on_accept=[
            passed_on(PORT, str(port)),
            passed_on(SOURCE, "%DOWNSTREAM_REMOTE_ADDRESS%", factory_key="envoy.string"),
            lookups.share(),
            *(
                [passed_on(CLIENT, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", factory_key="envoy.string")]
                if reporting
                else []
            ),
        ],
    )


def _by_protocol(tls_chains: chains.Chains) -> Json:
    """Return the matcher: TLS by its server name (RFC 6066), everything else is HTTP."""
    refused: Json = {"action": chains.action(chains.REFUSED)}
    by_protocol: Json = {"raw_buffer": {"action": chains.action(http.CHAIN)}, "tls": refused}
    if tls_chains.names:
        server_name = chains.matching_input("ServerNameInput")
        is_host_name = {
            "and_matcher": {
                "predicate": [
                    {
                        "single_predicate": {
                            "input": server_name,
                            "value_match": {"safe_regex": {"regex": regex, "google_re2": {}}},
                        }
                    }
                    for regex in HOST_NAME
                ]
            }
        }
        by_name = chains.select(tls_chains, server_name)
        matchers = [{"predicate": is_host_name, "on_match": by_name}]
        by_protocol["tls"] = {"matcher": {"matcher_list": {"matchers": matchers}, "on_no_match": refused}}
    return chains.exactly(chains.matching_input("TransportProtocolInput"), by_protocol)
