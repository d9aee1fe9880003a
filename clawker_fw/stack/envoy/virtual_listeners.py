"""Listeners at virtual addresses: each stands for one name, whatever an agent sends.

A rule for tcp or ssh has listeners of its own, bound to its name's address. So its removal ends its connections
and no others, and two hosts are never mistaken for each other. Each of its ports has one, because Envoy replaces a
listener whose ports change, and ends its connections; unless there are many, each of which takes 0.1 MB. For https
and http rules of the name there is a listener a port, which knows this name alone. Those for UDP are in
`datagrams`.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

from clawker_fw.rules.policy import Allowed, Policy
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.stack.envoy import bounds, chains, lookups, refusals
from clawker_fw.stack.envoy.listeners import ListenerPlace, at
from clawker_fw.stack.envoy.messages import HOST, PORT, TYPES, Json, extension, state
from clawker_fw.stack.envoy.telemetry import NAME, Reporting
from clawker_fw.stack.topology import EnvoyAddresses

_CHAIN = "tcp"

MOST_APART = 256
"""Ports of all rules for tcp and ssh together that have a listener each. If there are more, each rule has one."""


def listeners(
    policy: Policy, addresses: EnvoyAddresses, idle: float, reporting: Reporting | None = None
) -> Iterator[Json]:
    """Yield the listeners of all names that have an address of their own.

    `idle` is for how many seconds nothing need be sent.
    """
    served = policy.allowed_at(addresses.virtual)
    apart = sum(each is Protocol.TCP for allowed in served.values() for each, _ in allowed) <= MOST_APART
    for name, allowed in served.items():
        address = addresses.virtual[name]
        for opaque, ports in _opaque(allowed).items():
            for together in [[port] for port in ports] if apart else [ports]:
                filters = _filters(name, opaque, str(addresses.machine), idle, reporting)
                yield _forwarding(name, opaque, address, together, filters, reporting=reporting)
        for port in sorted({port for transport, port in allowed if not transport.opaque}):
            rule = allowed.get((Protocol.HTTPS, port))
            own = chains.of_rules("tls", {name: rule} if rule else {})
            place = ListenerPlace(f"{name} port-{port}", address, port, addresses.checkers)
            yield at(place, own, idle, reporting)


def _opaque(allowed: Allowed) -> dict[Rule, list[int]]:
    """Return the ports of each rule that is forwarded as it is: those that no other rule denies."""
    found: dict[Rule, list[int]] = {}
    for (transport, port), rule in allowed.items():
        if transport is Protocol.TCP:
            found.setdefault(rule, []).append(port)
    return found


def _forwarding(
    name: str,
    rule: Rule,
    address: IPv4Address,
    ports: list[int],
    filters: list[Json],
    *,
    reporting: Reporting | None,
) -> Json:
    """Return a listener that forwards to one host, to the port to which an agent has connected."""
    places = [
        {"address": {"socket_address": {"address": str(address), "port_value": port}}} for port in sorted(ports)
    ]
    first, *others = places
    return {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": f"{_CHAIN} {name}:{rule.written_port if others else ports[0]}",
        "stat_prefix": f"port-{_CHAIN}",  # whose connections `fwctl drain` counts
        "traffic_direction": "INBOUND",
        "per_connection_buffer_limit_bytes": bounds.BUFFER,
        **bounds.watched(),
        **first,
        **({"additional_addresses": others} if others else {}),
        "access_log": refusals.of_opaque(name, reporting),
        "filter_chains": [{"name": _CHAIN, "filters": filters}],
    }


def _filters(name: str, rule: Rule, machine: str, idle: float, reporting: Reporting | None) -> list[Json]:
    noted = extension(
        "filters.network.set_filter_state.v3.Config",
        on_new_connection=[
            state(HOST, rule.leads_to(name, machine)),
            state(PORT, "%DOWNSTREAM_LOCAL_PORT%"),
            *([state(NAME, name, factory_key="envoy.string")] if reporting else []),
        ],
    )
    return [noted, *lookups.forwarding(rule, _CHAIN, idle, name, opaque=True)]
