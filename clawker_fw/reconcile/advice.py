"""Warnings about a stack. They are not differences, and nothing is done about them. Pure."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from clawker_fw.agents import compose, trusted_roots
from clawker_fw.certificates.credentials import Provided, Provision, fingerprints
from clawker_fw.errors import FirewallError
from clawker_fw.model.containers import ContainerSummary
from clawker_fw.model.desired import Desired
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.rules.until import rfc3339
from clawker_fw.rules.upstream import Proxy
from clawker_fw.stack import labels, versions

OF_HOST = frozenset({"host-hears-agents"})
"""Common on ordinary hosts: only `doctor` shows them, and the run that starts a host's first stack."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A warning: a stable code and a sentence."""

    code: str
    message: str


def advice(
    observed: Observed,
    desired: Desired,
    provision: Provision,
    provided: Provided,
    unavailable: Iterable[FirewallError],
    *,
    proxy: Proxy | None = None,
) -> tuple[Advice, ...]:
    """Return all warnings. `unavailable` has the errors of secrets that can't be obtained."""
    return (
        *_in_clear(proxy),
        *_observing(desired),
        *_of_engine(observed),
        *_outside_of_compose(observed),
        *_outdated_envoy(observed, desired),
        *_unsent_telemetry(desired, provision.reason),
        *(Advice("telemetry-renewal", sentence) for sentence in provision.due),
        *_disputed_addresses(observed, desired),
        *_restarts(observed),
        *_failed_checks(observed),
        *_of_authorities(provided),
        *_without_root(observed, provided),
        *(Advice(error.code, f"{error.message} Requests that need it are refused.") for error in unavailable),
        *_unknown_ends(desired),
    )


def left_over_stacks(
    containers: Iterable[ContainerSummary], project: str, groups: Container[str]
) -> tuple[str, ...]:
    """Return the stacks of a project's groups that the settings no longer have."""
    stacks = set[str]()
    for container in containers:
        group = container.labels.get(labels.GROUP, "")
        if group and group not in groups and container.project == f"{project}-{group}":
            stacks.add(container.project)
    return tuple(sorted(stacks))


def left_over(stacks: Iterable[str]) -> tuple[Advice, ...]:
    """Warn of stacks whose groups are no longer in the settings."""
    return tuple(
        Advice(
            "left-over",
            f"Left over: {stack}, whose group is no longer in the settings. "
            "`clawker-fw run --remove-orphans` removes it.",
        )
        for stack in stacks
    )


def _observing(desired: Desired) -> Iterator[Advice]:
    """Warn while requests pass that no rule allows. Nobody can acknowledge that: the verdict says it too."""
    if desired.observing_until is not None:
        yield Advice(
            "observing",
            f"Until {rfc3339(desired.observing_until)}, agents reach any public host that no rule names, over "
            "https and http. `clawker-fw rules suggest` shows the rules that they need, and `clawker-fw rules "
            "observe --stop` ends it.",
        )


def _outside_of_compose(observed: Observed) -> Iterator[Advice]:
    """Warn of services that bypass the firewall while other services of their Compose project are agents."""
    for project in compose.bypassing(observed):
        names = ", ".join(project.services)
        yield Advice(
            "compose-service",
            f"Compose project {project.project}: {names} bypass{'es' if len(project.services) == 1 else ''} the "
            f"firewall that other services are behind. Run `{project.command}`.",
        )


def _in_clear(proxy: Proxy | None) -> Iterator[Advice]:
    if proxy and proxy.auth and not proxy.tls:
        yield Advice(
            "proxy-password-in-clear",
            f"The password for the proxy {proxy} is not encrypted on the way to it. Use `https://` in "
            "`upstream.proxy` if the proxy can, or write `acknowledged: [proxy-password-in-clear]`.",
        )


def _unknown_ends(desired: Desired) -> Iterator[Advice]:
    """Warn if rules expire at more times than the siblings know. Later expiries need a watcher, or a run."""
    if desired.unknown_ends:
        count = len(desired.siblings[Sibling.ENVOY].later)
        yield Advice(
            "rules-end-later",
            f"Rules end at {count + desired.unknown_ends:,} times. Envoy and CoreDNS know the next {count:,} "
            "and end those rules by themselves. Without a watcher, run `clawker-fw reload` before the last of "
            "these.",
        )


def _outdated_envoy(observed: Observed, desired: Desired) -> Iterator[Advice]:
    """Warn if a user's own image keeps an Envoy older than the one this release is tested with."""
    image, envoy = desired.siblings[Sibling.ENVOY].image, observed.siblings.get(Sibling.ENVOY)
    if image.oldest is None or envoy is None or envoy.probe is None:
        return
    applied = labels.read_applied(envoy.container.labels)
    running = versions.of_build(envoy.probe.build)
    current = applied is not None and applied.image == image.reference
    if running is not None and current and versions.is_older(running, image.oldest):
        yield Advice(
            "envoy-outdated",
            f"Envoy {running} is older than {image.oldest}, the version this release is tested with. "
            "Set `images.envoy` to a newer image, or to `bundled`.",
        )


def _unsent_telemetry(desired: Desired, problem: str) -> Iterator[Advice]:
    """Warn if the telemetry certificates can't be used or renewed. Rules are enforced anyway."""
    if not problem:
        return
    ready = desired.siblings[Sibling.ENVOY].labels[labels.INFRA_CERTS_READY] == "true"
    what = "Telemetry's certificates can't be renewed here" if ready else "Nothing is sent to `otel.endpoint`"
    yield Advice(
        "telemetry-certificates" if ready else "telemetry-not-ready",
        f"{what}: {problem}. `clawker-fw certs show` says more.",
    )


def _of_authorities(provided: Provided) -> Iterator[Advice]:
    if provided.reason:
        what = (
            "Inspected connections go on as they are" if provided.intermediates else "No connection is inspected"
        )
        yield Advice("inspection-certificates", f"{what}: {provided.reason}.")
    if provided.root_due and provided.root_ends is not None:
        yield Advice(
            "inspection-root",
            f"The root that agents trust expires at {rfc3339(provided.root_ends)}. "
            "`clawker-fw certs rotate --roots` makes another one. Create agents again within a week, so that "
            "they trust it.",
        )


def _without_root(observed: Observed, provided: Provided) -> Iterator[Advice]:
    """Warn of agents whose inspected connections fail now, or will fail with the new settings."""
    newest = next(iter(fingerprints(provided.trust)), "") if provided.intermediates else ""
    names = trusted_roots.without(newest, observed) if newest else ()
    if names:
        do, them = ("does", "it") if len(names) == 1 else ("do", "them")
        yield Advice(
            "agents-without-root",
            f"{trusted_roots.named(names)} {do} not trust the inspection root: recreate {them} with "
            "`clawker-fw agent run`, `agent flags` or `agent compose`. Inspected connections fail otherwise.",
        )


def _of_engine(observed: Observed) -> Iterator[Advice]:
    """Warn of what the engine and its host do to agents and siblings, where a replacement would not help.

    Docker has no network option that keeps agents' broadcasts from the host. The bridge has no address, so a host
    that checks source addresses drops these packets.
    """
    if not observed.machine.forwards:
        yield Advice(
            "no-forwarding",
            "The Docker host forwards no packets, so agents reach nothing (`docker info`: IPv4Forwarding). "
            "Run `sysctl -w net.ipv4.ip_forward=1` there, and take `ip-forward: false` out of its daemon.json.",
        )
    network = observed.networks.get(Role.AGENTS)
    if network and network.sources_checked is False:
        yield Advice(
            "host-hears-agents",
            f"The host receives what agents on {network.name} broadcast, because it does not check packets' "
            "sources. Run `sysctl -w net.ipv4.conf.all.rp_filter=2` there, and write the setting to "
            "/etc/sysctl.d. To accept it, write `acknowledged: [host-hears-agents]` in the settings.",
        )
    for other in observed.others:
        if other.unreadable:
            yield Advice(
                "network-unreadable",
                f"The engine's answer about the network {other.name} can't be read ({other.unreadable}). "
                "Its subnets are unknown, so they may overlap the firewall's.",
            )
    for name, sibling in observed.siblings.items():
        if sibling.container.may_lose_lines:
            yield Advice(
                "log-may-lose-lines",
                f"The log of {name.value} has the mode `non-blocking`, from `log-opts` in the engine's "
                "daemon.json: when a lot is written at once, lines are lost, and `denials` lacks them.",
            )


def _disputed_addresses(observed: Observed, desired: Desired) -> Iterator[Advice]:
    """Warn if another host answers ARP for a stack address that no listed container has.

    Any container with raw sockets can forge such answers. As a finding, they would let an agent have its
    neighbours disconnected and siblings replaced.
    """
    neighbours = [place for places in observed.attached.values() for place in places.items()]
    attached = {place.address for _, place in neighbours}
    for sibling in observed.siblings.values():
        for other in sibling.probe.others if sibling.probe else ():
            address, _, hardware = other.partition(" ")
            if address not in attached:
                ours = "the service address" if address == str(desired.service_address) else "an address of ours"
                names = sorted(name for name, place in neighbours if place.hardware == hardware)
                whose = f", which belongs to {names[0]} but may be forged" if names else ""
                yield Advice(
                    "address-disputed",
                    f"Another host answers ARP for {address}, {ours}, "
                    f"with the hardware address {hardware}{whose}.",
                )


def _failed_checks(observed: Observed) -> Iterator[Advice]:
    """Warn if Envoy has detected a bug in its own code. It goes on, perhaps with a wrong result."""
    for sibling in observed.siblings.values():
        if sibling.probe and sibling.probe.failed_checks:
            name, count = sibling.container.name, sibling.probe.failed_checks
            checks = f"{count:,} check{'s' if count > 1 else ''}"
            yield Advice(
                "failed-checks",
                f"Envoy has failed {checks} of its own code since it started: it has a bug. Save what "
                f"`docker logs {name} 2>&1 | grep envoy_bug` prints and report it, then install a newer "
                "release.",
            )


def _restarts(observed: Observed) -> Iterator[Advice]:
    """Warn of restarted helper processes. One that keeps exiting is a finding."""
    for name, sibling in observed.siblings.items():
        for restart in sibling.probe.restarts if sibling.probe else ():
            times = f"{restart.count:,} times" if restart.count > 1 else "once"
            yield Advice(
                "helper-restarted",
                f"The {restart.helper} in {name.value} has ended {times} since its container started, "
                f"the last time at {restart.last} ({restart.reason}). It was started again.",
            )
