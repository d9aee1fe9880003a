"""diff: compare the relays with the ports that agents publish. Pure.

The desired relays follow from all agents that publish ports, running or not. Relays use CoreDNS's image, so
findings count them as part of CoreDNS's state.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network

from clawker_fw.errors import RefusedError, SettingsError
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.model.desired import Desired
from clawker_fw.model.differences import RELAYING, Action, Cause, Finding, Layer, Value
from clawker_fw.model.networks import NetworkSpec, NetworkView
from clawker_fw.model.observed import Observed, ObservedRelay
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.reconcile.compare.image import image_difference
from clawker_fw.reconcile.compare.shape import shape_differences
from clawker_fw.stack import labels
from clawker_fw.stack.container import HELPER
from clawker_fw.stack.relay import Publication, is_relay, publication_of, relay_name, relay_spec
from clawker_fw.stack.topology import free_subnet, network_fields, publishing_spec, recorded_fields, running_fields

FIELD = "relays."
"""The prefix of these findings' fields."""

_NETWORK = "network"


@dataclass(frozen=True)
class RelayComparison:
    """The running and the desired relays."""

    observed: Observed
    desired: Desired

    @cached_property
    def _agents(self) -> IPv4Network:
        """The agents' current subnet, or else the desired one."""
        return self.observed.agents_subnet or self.desired.networks[Role.AGENTS].subnet

    @cached_property
    def _published(self) -> Mapping[str, tuple[str, Publication]]:
        """The ports of each relay, by its name, with the agent's id.

        Of two agents with the same number, only one can run. It has the relay; if none runs, the first by name.
        """
        by_name: dict[str, tuple[str, Publication]] = {}
        for view in sorted(
            self.observed.publishers, key=lambda publisher: (not publisher.running, publisher.name)
        ):
            if publication := publication_of(view, self.desired.project, self._agents):
                by_name.setdefault(relay_name(self.desired.project, publication.number), (view.id, publication))
        return by_name

    @cached_property
    def network(self) -> NetworkSpec | None:
        """The network for published ports, existing or to create; None without such ports or a free subnet."""
        if not self._published:
            return None
        with suppress(SettingsError):
            return publishing_spec(self.desired.project, self.subnet())
        return None

    def subnet(self) -> IPv4Network:
        """Return the subnet for published ports.

        Raises:
            SettingsError: if it does not exist, and no subnet is free.
        """
        observed, network = self.observed, self.observed.publishing
        if network and network.subnets:
            return network.subnets[0]
        ours = [subnet for network in observed.networks.values() for subnet in network.subnets]
        taken = [*observed.subnets, *ours, *(network.subnet for network in self.desired.networks.values())]
        routed = [route for route in observed.engine.routes if route not in taken]
        return free_subnet(Role.EGRESS, taken, routed)

    @cached_property
    def _blocked(self) -> set[str]:
        project = self.desired.project
        return {
            container.name
            for container in self.observed.listing
            if container.name in self.specs and not is_relay(container, project)
        }

    @cached_property
    def specs(self) -> Mapping[str, ContainerSpec]:
        """The desired relays, by name."""
        if self.network is None:
            return {}
        place, machine = (self.desired, self._agents, self.network.subnet), self.observed.machine
        published = self._published.items()
        return {
            name: relay_spec(*place, publication, agent, machine=machine)
            for name, (agent, publication) in published
        }

    @property
    def unlike(self) -> NetworkView | None:
        """The network for published ports, if it differs from the one we create."""
        network = self.observed.publishing
        return network if network and self.network and any(_of_network(network, self.network)) else None

    def findings(self) -> Iterator[Finding]:
        """Yield every difference. People must resolve a name or a subnet that is taken."""
        if self._published and self.network is None:
            yield _finding(_NETWORK, "no subnet is free", "a free subnet", Cause.AGENT, Action.NONE)
            return
        relays = {relay.container.name: relay for relay in self.observed.relays}
        for name in sorted(self._blocked):
            yield _finding(name, "not made by clawker-fw", "running", Cause.AGENT, Action.NONE)
        for name, relay in sorted(relays.items()):
            if name in self.specs:
                yield from self._differences(relay, self.specs[name])
            else:
                yield _finding(name, relay.container.status, None, Cause.AGENT, Action.UNPUBLISH)
        for name in sorted(self.specs.keys() - relays.keys() - self._blocked):
            yield _finding(name, "missing", "running", Cause.AGENT, Action.PUBLISH)
        if self.network and (network := self.observed.publishing):
            recorded = recorded_fields(network, self.network)
            for field, running, desired in _of_network(network, self.network):
                cause = _cause(made=running == recorded.get(field, running))
                yield _finding(f"{_NETWORK}.{field}", running, desired, cause, Action.PUBLISH)

    def selected(self, findings: tuple[Finding, ...]) -> "RelayChanges":
        """Return the changes that close these findings."""
        fields = (finding.field for finding in findings if finding.action in RELAYING)
        names = {field.removeprefix(FIELD).partition(".")[0] for field in fields}
        again = _NETWORK in names
        free = ((name, spec) for name, spec in sorted(self.specs.items()) if name not in self._blocked)
        made = tuple(spec for name, spec in free if again or name in names)
        network = self.observed.publishing
        return RelayChanges(
            removed=tuple(relay for relay in self.observed.relays if again or relay.container.name in names),
            network_removed=network if again else None,
            network_made=self.network if made and (again or network is None) else None,
            made=made,
        )

    def _differences(self, relay: ObservedRelay, spec: ContainerSpec) -> Iterator[Finding]:
        container = relay.container
        for label in (labels.RELAY_OF, labels.PUBLISHES):
            if container.labels.get(label) != spec.labels[label]:
                short = label.rpartition(".")[2]
                yield _differs(spec, short, container.labels.get(label), spec.labels[label], Cause.AGENT)
        if container.status != "running":
            yield _differs(spec, "status", container.status, "running", Cause.TAMPER)
        for name, address in spec.shape.networks.items() if container.running else ():
            if (now := container.connected.get(name)) != address:
                yield _differs(spec, f"networks.{name}", now, address, Cause.TAMPER)
        if other := image_difference(self.observed, container, self.desired.siblings[Sibling.COREDNS].image):
            yield _differs(spec, "image", other.running, other.desired, _cause(made=other.made))
        applied = labels.read_applied(container.labels)
        others = container.labels.get(labels.PUBLISHES) != spec.labels[labels.PUBLISHES]
        unrecorded = applied is not None
        for field, running, desired, made in shape_differences(
            self.observed, container, spec.shape, unrecorded=unrecorded
        ):
            cause = Cause.AGENT if made and others and field in _OF_AGENT else _cause(made=made)
            yield _differs(spec, field, running, desired, cause)
        helper, desired_helper = relay.files.get(HELPER), spec.files[HELPER]
        if helper != desired_helper:
            now = helper.digest if helper else "missing"
            made = applied is not None and applied.boot.get(HELPER) == now
            yield _differs(spec, HELPER, now, desired_helper.digest, _cause(made=made))
        if relay.differences:
            yield _differs(spec, "inside", relay.differences, (), Cause.TAMPER)


def foreign_relay(name: str) -> RefusedError:
    """Return the error for a foreign container with a relay's name."""
    return RefusedError(
        "foreign-container",
        f"The container {name} exists, but clawker-fw did not create it. Ports of an agent can't be published.",
        hint="Rename or remove that container.",
    )


@dataclass(frozen=True, slots=True)
class RelayChanges:
    """The changes that close differences of relays, in this order."""

    removed: tuple[ObservedRelay, ...]
    network_removed: NetworkView | None
    network_made: NetworkSpec | None
    made: tuple[ContainerSpec, ...]


_OF_AGENT = frozenset({"command", "networks", "ports"})
"""The fields of a relay's shape that follow from its agent's ports."""


def _finding(field: str, running: Value, desired: Value, cause: Cause, action: Action) -> Finding:
    return Finding(Sibling.COREDNS, Layer.STATE, f"{FIELD}{field}", running, desired, cause, action)


def _differs(spec: ContainerSpec, field: str, running: Value, desired: Value, cause: Cause) -> Finding:
    return _finding(f"{spec.name}.{field}", running, desired, cause, Action.PUBLISH)


def _cause(*, made: bool) -> Cause:
    return Cause.UPGRADE if made else Cause.TAMPER


def _of_network(network: NetworkView, spec: NetworkSpec) -> Iterator[tuple[str, Value, Value]]:
    running = running_fields(network, spec)
    for field, value in network_fields(spec).items():
        if running[field] != value:
            yield field, running[field], value
