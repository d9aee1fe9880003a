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
from clawker_fw.stack.topology import network_fields, recorded_fields

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
        recorded = recorded_fields(network, spec)
        further = _further_options(role, network, recorded, observed, desired)
        running = {**running_fields(network, spec), **further}
        wanted = {**network_fields(spec), **dict.fromkeys(further, "")}
        recorded = {**recorded, **dict.fromkeys(further, "")}
        differing = [name for name in wanted if running[name] != wanted[name]]
        for field in sorted({name.partition(".")[0] for name in differing}):
            names = [name for name in differing if name.partition(".")[0] == field]
            yield Finding(
                sibling,
                Layer.SHAPE,
                f"networks.{spec.name}.{field}",
                _shown(field, running),
                _shown(field, wanted),
                _cause(field, network, spec, made=all(running[n] == recorded.get(n, running[n]) for n in names)),
                Action.RECREATE_NETWORKS,
            )


def _cause(field: str, network: NetworkView, spec: NetworkSpec, *, made: bool) -> Cause:
    """Return the cause of a field. `made` is whether its record has it like this, or does not speak of it."""
    # These follow from the subnet, which only the settings can change.
    if made and field in {"subnet", "gateway", "ip_range"} and network.subnets != (spec.subnet,):
        return Cause.SETTINGS
    return Cause.UPGRADE if made else Cause.TAMPER


def running_fields(network: NetworkView, spec: NetworkSpec) -> dict[str, str | bool]:
    """Return what a network is like, in the form of `network_fields`. A missing option is empty."""
    return {
        "driver": network.driver,
        "gateway": network.gateway,
        "internal": network.internal,
        "ip_range": str(network.ip_range),
        "ipv6": network.ipv6,
        "subnet": ", ".join(map(str, network.subnets)),
        **{f"options.{name}": network.options.get(name, "") for name in spec.options},
    }


def _further_options(
    role: Role, network: NetworkView, recorded: Mapping[str, object], observed: Observed, desired: Desired
) -> dict[str, str]:
    """Return the options that nobody asked for, in the form of `network_fields`.

    The engine adds its own defaults (`default-network-opts`) to every network. So an option that each of our other
    networks has as well is one of these, unless we ask for it there.
    """
    others = [
        (observed.networks[other], desired.networks[other]) for other in observed.networks if other is not role
    ]

    def is_default(name: str, text: str) -> bool:
        found = [there.options.get(name) for there, spec in others if name not in spec.options]
        return bool(found) and set(found) == {text}

    return {
        f"options.{name}": text
        for name, text in network.options.items()
        if name not in desired.networks[role].options
        and recorded.get(f"options.{name}") != text  # set by an earlier release, which this one leaves alone
        and not is_default(name, text)
    }


def _shown(field: str, values: Mapping[str, str | bool]) -> Value:
    """Return the value of a field as findings show it."""
    if field in values:
        return values[field]
    named = {name.partition(".")[2]: text for name, text in sorted(values.items()) if name.startswith(f"{field}.")}
    return tuple(f"{name}={text}" for name, text in named.items() if text)


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
