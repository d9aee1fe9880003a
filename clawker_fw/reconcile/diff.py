"""diff: compare the observed stack with the desired one, layer by layer. Pure.

Each difference has a cause. `tamper`: we did not make the running value. `settings`: this release made it, and
settings or rules have changed since. `upgrade`: another release made it, or made it of other presets. Labels and
the last commit's record show what we made, and with which release. The agent network is part of CoreDNS's state,
the egress network part of Envoy's.
"""

from collections.abc import Iterator, Mapping

from clawker_fw.model.desired import Desired
from clawker_fw.model.differences import LEFTOVER, Action, Cause, Diff, Finding, Layer, Value, Verdict
from clawker_fw.model.networks import NetworkSpec, NetworkView
from clawker_fw.model.observed import Observed, ObservedSibling
from clawker_fw.model.secrets import SecretDifference
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.reconcile.compare.live import ANSWER
from clawker_fw.reconcile.compare.relays import RelayComparison
from clawker_fw.reconcile.compare.sibling import sibling_findings
from clawker_fw.stack.topology import network_fields, recorded_fields, running_fields

_OWNER = {Role.AGENTS: Sibling.COREDNS, Role.EGRESS: Sibling.ENVOY}


def diff(observed: Observed, desired: Desired, secrets: tuple[SecretDifference, ...] = ()) -> Diff:
    """Return every difference between two stacks in the same slots. `secrets` are those of Envoy's secrets."""
    findings: list[Finding] = []
    for sibling in Sibling:
        findings += network_findings(sibling, observed, desired)
        running = observed.siblings.get(sibling)
        if running is None:
            cause = Cause.UPGRADE if observed.unfinished else Cause.TAMPER
            gone = Finding(sibling, Layer.STATE, "container", "missing", "running", cause, Action.CREATE)
            findings.append(gone)
        else:
            findings += sibling_findings(observed, desired, running, secrets)
        findings += [_leftover(leftover) for leftover in observed.leftovers if leftover.sibling is sibling]
        findings += intruder_findings(sibling, observed, desired)
    findings += RelayComparison(observed, desired).findings()
    order = {layer: position for position, layer in enumerate(Layer)}
    findings.sort(key=lambda finding: order[finding.layer])
    of = {sibling: [finding for finding in findings if finding.sibling is sibling] for sibling in Sibling}
    return Diff(
        tuple(finding for sibling in Sibling for finding in of[sibling]),
        {sibling: _verdict(of[sibling], desired) for sibling in Sibling},
    )


def _verdict(findings: list[Finding], desired: Desired) -> Verdict:
    """Return a sibling's verdict. Relays without an agent don't count as drift, because they reach nobody."""
    findings = [finding for finding in findings if finding.action is not Action.UNPUBLISH]
    if not findings:
        return Verdict.CURRENT if desired.observing_until is None else Verdict.OBSERVING
    unread = all(finding.layer is Layer.LIVE and finding.field == ANSWER for finding in findings)
    return Verdict.UNKNOWN if unread else Verdict.DRIFTED


def _leftover(sibling: ObservedSibling) -> Finding:
    field, status = f"{LEFTOVER}{sibling.container.name}", sibling.container.status
    return Finding(sibling.sibling, Layer.STATE, field, status, None, Cause.UPGRADE, Action.REMOVE)


def network_findings(sibling: Sibling, observed: Observed, desired: Desired) -> Iterator[Finding]:
    """Yield the differences of the networks that are part of a sibling's state."""
    for role, spec in desired.networks.items():
        network = observed.networks.get(role)
        if _OWNER[role] is not sibling:
            continue
        if network is None:
            cause = Cause.UPGRADE if observed.unfinished else Cause.TAMPER
            field, subnet = f"networks.{spec.name}", str(spec.subnet)
            yield Finding(sibling, Layer.STATE, field, "missing", subnet, cause, Action.CREATE)
            continue
        recorded = recorded_fields(network, spec)
        further = _further_options(role, network, recorded, observed, desired)
        running = {**running_fields(network, spec), **further}
        required = {**network_fields(spec), **dict.fromkeys(further, "")}
        recorded = {**recorded, **dict.fromkeys(further, "")}
        differing = [name for name in required if running[name] != required[name]]
        for field in sorted({name.partition(".")[0] for name in differing}):
            names = [name for name in differing if name.partition(".")[0] == field]
            yield Finding(
                sibling,
                Layer.SHAPE,
                f"networks.{spec.name}.{field}",
                _shown(field, running),
                _shown(field, required),
                _cause(field, network, spec, made=all(running[n] == recorded.get(n, running[n]) for n in names)),
                Action.RECREATE_NETWORKS,
            )


def _cause(field: str, network: NetworkView, spec: NetworkSpec, *, made: bool) -> Cause:
    """Return a field's cause. `made` is whether the record has this value, or lacks the field."""
    # These follow from the subnet, which only the settings can change.
    if made and field in {"subnet", "gateway", "ip_range"} and network.subnets != (spec.subnet,):
        return Cause.SETTINGS
    return Cause.UPGRADE if made else Cause.TAMPER


def _further_options(
    role: Role, network: NetworkView, recorded: Mapping[str, object], observed: Observed, desired: Desired
) -> dict[str, str]:
    """Return the options that we did not request, in the form of `network_fields`.

    The engine adds its own defaults (`default-network-opts`) to every network. So an option that each of our other
    networks has as well is such a default, unless we request it there.
    """
    others = [
        (observed.networks[other], desired.networks[other]) for other in observed.networks if other is not role
    ]

    def is_default(name: str, text: str) -> bool:
        options = [view.options.get(name) for view, spec in others if name not in spec.options]
        return bool(options) and set(options) == {text}

    return {
        f"options.{name}": text
        for name, text in network.options.items()
        if name not in desired.networks[role].options
        and recorded.get(f"options.{name}") != text  # set by an earlier release, which this one leaves alone
        and not is_default(name, text)
    }


def _shown(field: str, values: Mapping[str, str | bool]) -> Value:
    if field in values:
        return values[field]
    named = {name.partition(".")[2]: text for name, text in sorted(values.items()) if name.startswith(f"{field}.")}
    return tuple(f"{name}={text}" for name, text in named.items() if text)


def intruder_findings(sibling: Sibling, observed: Observed, desired: Desired) -> Iterator[Finding]:
    """Yield foreign containers at a sibling's reserved address, which agents would take for that sibling."""
    for role, places in observed.attached.items():
        if _OWNER[role] is sibling:
            for name, place in places.items():
                if desired.is_reserved(role, place.address):
                    field = f"address.{place.address}"
                    yield Finding(sibling, Layer.STATE, field, name, None, Cause.TAMPER, Action.DETACH)
