"""desired: compute the desired stack from the settings, the rules and the installed release. Pure.

Only slots, subnets and the Docker host's resources are observed. The same inputs give the same bytes.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw import rendering
from clawker_fw.certificates.credentials import NO_AUTHORITIES, Authorities, Credentials, Provided
from clawker_fw.errors import SettingsError
from clawker_fw.model.containers import Shape
from clawker_fw.model.desired import Desired, DesiredSibling, Rules
from clawker_fw.model.engines import EngineFacts, Machine
from clawker_fw.model.files import File, Files
from clawker_fw.model.images import Image
from clawker_fw.model.observed import Observed
from clawker_fw.model.origin import Origin
from clawker_fw.model.stacks import Role, Sibling, Slots
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.model import Settings
from clawker_fw.stack import container, coredns, expiry, image_tar, images, labels, name_list, virtual
from clawker_fw.stack.collector import TelemetryTarget
from clawker_fw.stack.container import HELPER, ORIGIN, state_record
from clawker_fw.stack.envoy import bootstrap, signing
from clawker_fw.stack.envoy import sibling as envoy
from clawker_fw.stack.release import Release
from clawker_fw.stack.resources import Resource, live_digests
from clawker_fw.stack.topology import Addressing, free_subnet, network_specs

if TYPE_CHECKING:
    from clawker_fw.certificates.store import (
        InspectionStore,  # only what inspects connections needs it
        TelemetryStore,  # only what has telemetry needs it
    )
    from clawker_fw.settings.secrets.vault import Vault  # only rules that inject need these
    from clawker_fw.settings.secrets.wanted import WantedSecret


_ANOTHER_SUBNET = "Set `network.subnet` to another subnet, or remove it: a free one is chosen then."


@dataclass(frozen=True)
class Blueprint:
    """All inputs of the desired state that don't depend on the observed stack."""

    project: str
    settings: Settings
    rules: RuleSet
    release: Release
    engine: EngineFacts
    certificates: "TelemetryStore | None" = None
    """This machine's telemetry certificates; None without telemetry."""
    provider: "InspectionStore | None" = None
    """The CAs for inspected connections; None if no rule inspects any."""
    origin: Origin | None = None
    """The settings' source, recorded in the stack unless it is None."""
    authorities: bytes = dataclasses.field(default=b"", repr=False)
    """Further CAs (PEM) that may certify the hosts of inspected connections."""
    proxy_authorities: bytes = dataclasses.field(default=b"", repr=False)
    """The CAs (PEM) that may certify the upstream proxy; public ones if empty."""
    wanted: "tuple[WantedSecret, ...]" = ()
    """The secrets that rules put into requests."""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    vault: "Vault | None" = dataclasses.field(default=None, compare=False, repr=False)
    """The store of secret values; None if no rule needs a secret."""
    files: tuple[Path, ...] = ()
    """The files and folders that decide the desired state. An agent that can write one controls the firewall."""
    named_by: str = ""
    """What chose the settings file: an option, a variable, or its default place."""
    last_good: bool = dataclasses.field(default=False, compare=False)
    """Whether all of this comes from saved good settings, so that changes to files have no effect."""

    @cached_property
    def desired_in(self) -> Callable[..., Desired]:
        """Returns the desired stack for given slots. With thousands of rules, that takes long."""
        return functools.cache(functools.partial(desired_state, self))

    @cached_property
    def images(self) -> Mapping[Sibling, Image]:
        """The image each sibling should be made from."""
        chosen = {Sibling.ENVOY: self.settings.images.envoy, Sibling.COREDNS: self.settings.images.coredns}
        return {
            sibling: images.image_of(sibling, setting, self.release, self.engine)
            for sibling, setting in chosen.items()
        }

    @cached_property
    def policy(self) -> Policy:
        """The compiled rules."""
        return Policy(self.rules)

    @cached_property
    def later(self) -> Mapping[int, Policy]:
        """The rules after each of the next expiries, in seconds since 1970. The end of observing is always one."""
        moments = self.rules.deadlines[: expiry.known_expiries(len(self.rules.rules))]
        if self.rules.observing:
            moments = tuple(sorted({*moments, self.rules.observing.until}))
        return {moment: Policy(self.rules.at(moment)) for moment in moments}

    def authorities_for(self, live: Authorities) -> Provided:
        """Return the CAs for a stack that has the `live` ones."""
        names = signing.covered(self.policy)
        return self.provider.provide(names, live) if names and self.provider else Provided()

    @property
    def opaque(self) -> Collection[str]:
        """The names that need a virtual address, now or once deny rules have expired."""
        return {name for policy in (self.policy, *self.later.values()) for name in policy.opaque}

    def at(self, now: float) -> "Blueprint":
        """Return the blueprint with the rules that have not expired at a time, in seconds since 1970."""
        rules = self.rules.at(now)
        return self if rules is self.rules else replace(self, rules=rules)

    @cached_property
    def helper(self) -> File:
        """The fwctl program for the engine's architecture."""
        return self.release.helper(self.engine.architecture)


def prepare(blueprint: Blueprint) -> None:
    """Compute the slow parts that every desired state shares, while the engine answers."""
    _ = blueprint.images, blueprint.release.build_sha, blueprint.policy, blueprint.later
    rendering.compiled(bootstrap.TEMPLATE)


def built_images(blueprint: Blueprint) -> dict[Sibling, image_tar.BuiltImage]:
    """Return the images that we build ourselves."""
    return {
        sibling: images.bundled(sibling, blueprint.release, blueprint.engine)
        for sibling, image in blueprint.images.items()
        if image.bundled
    }


def addressing(blueprint: Blueprint, observed: Observed) -> Addressing:
    """Return the stack's subnets: from the settings, else the current ones, else free ones.

    Names keep their virtual addresses.

    Raises:
        SettingsError: if the subnet in the settings is taken, routed elsewhere or too small, or none is free.
    """
    has = {role: next(iter(network.subnets), None) for role, network in observed.networks.items()}
    chosen = blueprint.settings.network.subnet
    # The stacks of a file's groups are created at the same time.
    stack = blueprint.project if blueprint.origin and blueprint.origin.group else ""
    own = [subnet for subnet in has.values() if subnet]
    routed = [route for route in observed.engine.routes if route not in {*observed.subnets, *own}]
    if chosen and chosen != has.get(Role.AGENTS):
        _require_free(chosen, observed.subnets, routed)
    agents = (
        chosen
        or has.get(Role.AGENTS)
        or free_subnet(Role.AGENTS, [*observed.subnets, *own], routed, len(blueprint.opaque), stack=stack)
    )
    egress = has.get(Role.EGRESS)
    if egress is None or egress.overlaps(agents):
        egress = free_subnet(Role.EGRESS, [*observed.subnets, agents], routed, stack=stack)
    # Rules reach Envoy first, so after an interrupted run, agents know the addresses in CoreDNS's record.
    records = (observed.siblings.get(sibling) for sibling in (Sibling.COREDNS, Sibling.ENVOY))
    before = virtual.recorded(*(sibling.files for sibling in records if sibling))
    numbers = virtual.assigned(blueprint.opaque, before, Addressing(agents, egress).room)
    return Addressing(agents, egress, numbers)


def _require_free(subnet: IPv4Network, taken: Collection[IPv4Network], routed: Collection[IPv4Network]) -> None:
    """Require that no network overlaps a subnet, and that no more specific route leads into it."""
    if others := [str(network) for network in taken if network.overlaps(subnet)]:
        raise SettingsError(
            "subnet-taken",
            f"The subnet {subnet} overlaps other networks of this engine.",
            context=others,
            hint=_ANOTHER_SUBNET,
        )
    if routes := [str(network) for network in routed if network.subnet_of(subnet)]:
        raise SettingsError(
            "subnet-routed",
            f"The subnet {subnet} overlaps routes of the Docker host.",
            context=routes,
            hint=_ANOTHER_SUBNET,
        )


def _telemetry(blueprint: Blueprint, credentials: Credentials | None) -> TelemetryTarget | None:
    otel, release = blueprint.settings.otel, blueprint.release
    if otel.endpoint is None:
        return None
    host, _, port = otel.endpoint.rpartition(":")
    return TelemetryTarget(
        host,
        int(port),
        otel.server_name or host,
        otel.infra_port,
        otel.sample,
        blueprint.project,
        release.version,
        release.build_sha,
        credentials,
    )


def slots(observed: Observed, addresses: Addressing) -> Slots:
    """Return the siblings' slots. A missing Envoy gets the slot to which CoreDNS still sends agents."""
    held = {name: sibling.slot for name, sibling in observed.siblings.items()}
    if Sibling.ENVOY not in held and Sibling.COREDNS in observed.siblings:
        sent_to = name_list.envoy_address(observed.siblings[Sibling.COREDNS].files)
        held[Sibling.ENVOY] = int(sent_to == str(addresses.envoy(1)))
    return Slots(held.get(Sibling.ENVOY, 0), held.get(Sibling.COREDNS, 0))


def desired_state(
    blueprint: Blueprint,
    addresses: Addressing,
    machine: Machine,
    slots: Slots,
    *,
    credentials: Credentials | None = None,
    authorities: Authorities = NO_AUTHORITIES,
) -> Desired:
    """Return the desired stack with its siblings in the given slots.

    `credentials` are for telemetry, `authorities` for inspected connections.

    Raises:
        SettingsError: if the settings ask for more than the Docker host has.
    """
    project, limits, resources = blueprint.project, blueprint.settings.limits, blueprint.settings.resources
    of_envoy, of_coredns = envoy.capacity(resources, machine), coredns.capacity(resources, machine)
    telemetry_target = _telemetry(blueprint, credentials)
    drift_labels = labels.drift_labels(
        infra_certs_ready=telemetry_target is not None and credentials is not None,
        otel_infra_port=blueprint.settings.otel.infra_port,
        stack_build_sha=blueprint.release.build_sha,
    )
    return Desired(
        project=project,
        unknown_ends=len(blueprint.rules.deadlines) - len(blueprint.later),
        observing_until=blueprint.rules.observing.until if blueprint.rules.observing else None,
        secrets=tuple(secret.identity for secret in blueprint.wanted),
        service_address=addresses.service,
        reserved=addresses.reserved,
        blocks=(*addresses.blocks(0), *addresses.blocks(1)),
        networks=network_specs(project, addresses),
        siblings={
            Sibling.ENVOY: _sibling(
                blueprint,
                Sibling.ENVOY,
                slot=slots.envoy,
                shape=envoy.shape(project, addresses, slots.envoy, of_envoy, machine),
                boot=envoy.boot(
                    project,
                    addresses,
                    slots.envoy,
                    limits=limits,
                    capacity=of_envoy,
                    authorities=blueprint.authorities,
                    secrets=[secret.identity for secret in blueprint.wanted],
                    proxy=blueprint.rules.proxy,
                    proxy_authorities=blueprint.proxy_authorities,
                ),
                hot=lambda rules: envoy.hot(
                    rules,
                    addresses,
                    slots.envoy,
                    limits,
                    telemetry_target,
                    authorities=authorities,
                    headers=blueprint.headers,
                ),
                drift_labels=drift_labels,
                resources=envoy.RESOURCES,
                from_machine=container.from_machine(of_envoy, machine),
            ),
            Sibling.COREDNS: _sibling(
                blueprint,
                Sibling.COREDNS,
                slot=slots.coredns,
                shape=coredns.shape(project, addresses, slots.coredns, of_coredns, machine),
                boot=coredns.boot(addresses, slots.coredns, limits, of_coredns),
                hot=lambda rules: coredns.hot(rules, addresses, slots, telemetry_target),
                drift_labels=drift_labels,
                resources=coredns.RESOURCES,
                from_machine=container.from_machine(of_coredns, machine),
            ),
        },
        images=(
            *sorted(image.reference for image in blueprint.images.values()),
            images.lock_image(blueprint.engine).reference,
        ),
    )


def _rules(rules: RuleSet) -> Rules:
    return Rules(len(rules.rules), rules.digest)


def _sibling(
    blueprint: Blueprint,
    sibling: Sibling,
    *,
    slot: int,
    shape: Shape,
    boot: Files,
    hot: Callable[[Policy], Files],
    drift_labels: Mapping[str, str],
    resources: tuple[Resource, ...],
    from_machine: Mapping[str, int | str],
) -> DesiredSibling:
    image, origin = blueprint.images[sibling], blueprint.origin
    boot = {HELPER: blueprint.helper, **boot}
    now, later = hot(blueprint.policy), []
    for moment, left in blueprint.later.items():
        files = hot(left)
        later.append(expiry.Expiry(moment, files, live_digests(resources, files), _rules(left.rules)))
    whole = {expiry.EXPIRIES: expiry.expiries_file(now, later), **now}
    return DesiredSibling(
        sibling=sibling,
        image=image,
        labels={
            **labels.sibling_labels(blueprint.project, sibling, slot),
            **drift_labels,
            **({labels.GROUP: origin.group} if origin and origin.group else {}),
            labels.APPLIED: labels.applied_label(image, shape, boot, whole, from_machine),
        },
        shape=shape,
        boot=boot,
        hot=whole,
        live=live_digests(resources, whole),
        later=tuple(end.live for end in later),
        rules=_rules(blueprint.rules),
        kept={ORIGIN: state_record(origin)} if origin else {},
        from_machine=from_machine,
    )
