"""diff: compare the two networks with what they should be, and find others at the addresses of siblings. Pure.

The agents' network is part of CoreDNS's state, the way out part of Envoy's.
"""

from collections.abc import Iterator, Mapping

from clawker_fw.model import (
    Action,
    Cause,
    Desired,
    Finding,
    Layer,
    NetworkSpec,
    NetworkView,
    Observed,
    Role,
    Sibling,
    Value,
)

_OWNER = {Role.AGENTS: Sibling.COREDNS, Role.EGRESS: Sibling.ENVOY}


def network_findings(sibling: Sibling, observed: Observed, desired: Desired) -> Iterator[Finding]:
    """Yield the differences of the networks that count as part of a sibling's state."""
    for role, spec in desired.networks.items():
        network = observed.networks.get(role)
        if _OWNER[role] is not sibling:
            continue
        if network is None:
            cause = Cause.UPGRADE if observed.absent else Cause.TAMPER
            yield Finding(
                sibling,
                Layer.STATE,
                f"networks.{spec.name}",
                "missing",
                str(spec.subnet),
                cause,
                Action.CREATE,
            )
            continue
        for field, (running, wanted) in _network_fields(network, spec).items():
            if running != wanted:
                # These fields follow from the subnet, which only the settings can change. The others are fixed.
                follows = field in {"subnet", "gateway", "ip_range"} and network.subnets != (spec.subnet,)
                cause = Cause.SETTINGS if follows else Cause.TAMPER
                yield Finding(
                    sibling,
                    Layer.SHAPE,
                    f"networks.{spec.name}.{field}",
                    running,
                    wanted,
                    cause,
                    Action.RECREATE_NETWORKS,
                )


def _network_fields(network: NetworkView, spec: NetworkSpec) -> dict[str, tuple[Value, Value]]:
    options = {key: network.options.get(key) for key in spec.options}
    return {
        "driver": (network.driver, "bridge"),
        "gateway": (network.gateway, str(spec.gateway)),
        "internal": (network.internal, spec.internal),
        "ipv6": (network.ipv6, False),
        "ip_range": (str(network.ip_range), str(spec.ip_range)),
        "options": (_pairs(options), _pairs(spec.options)),
        "subnet": (", ".join(map(str, network.subnets)), str(spec.subnet)),
    }


def _pairs(values: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{key}={values[key]}" for key in sorted(values) if values[key] is not None)


def intruder_findings(sibling: Sibling, observed: Observed, desired: Desired) -> Iterator[Finding]:
    """Yield the containers to which the engine has given an address that is reserved for a sibling.

    Agents would take such a container for the resolver or the proxy.
    """
    for role, places in observed.attached.items():
        if _OWNER[role] is sibling:
            for name, place in places.items():
                if desired.is_reserved(role, place.address):
                    field = f"address.{place.address}"
                    yield Finding(sibling, Layer.STATE, field, name, None, Cause.TAMPER, Action.DETACH)
