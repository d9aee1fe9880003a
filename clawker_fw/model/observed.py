"""The observed state of a stack: everything that was read for one decision."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from clawker_fw.model.containers import ContainerSummary, ContainerView
from clawker_fw.model.engines import EngineFacts, Machine
from clawker_fw.model.files import Files
from clawker_fw.model.images import ImageView, OwnImage
from clawker_fw.model.networks import Endpoint, NetworkView
from clawker_fw.model.probes import Probe
from clawker_fw.model.secrets import HeldSecrets
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.model.volumes import VolumeView


@dataclass(frozen=True, slots=True)
class ObservedSibling:
    """A container that serves, or served, as a sibling. `probe` is None if and only if it does not run."""

    sibling: Sibling
    container: ContainerView
    slot: int
    files: Files = dataclasses.field(repr=False)
    probe: Probe | None


@dataclass(frozen=True, slots=True)
class ObservedRelay:
    """A container that passes connections on to the published ports of one agent.

    `differences` is what its helper reports of its network and its ports; it is empty while it does not run.
    """

    container: ContainerView
    files: Files = dataclasses.field(repr=False)
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that was read from the engine for one decision.

    `siblings` are the serving containers, and `leftovers` our other ones, left behind by an unfinished run.
    `images` maps each desired reference and each running image id to the engine's image.
    `attached` maps the containers on each network that are not ours to their endpoints.
    `own_images` maps the images that we built to the ids of containers made from them. `orphans` are our volumes
    without a container, and `spare_trust` those with what agents trust that no container uses. `lock` is the
    lock's container, which exists during a run and after a killed one, and `trial` that of `conformance`.
    `listing` is every container of the engine but the lock's. `machine` is what the engine's machine has at this
    moment.
    `agents` are the containers on the agent network that are not ours, those that use the network of one, or of a
    sibling, and those that have the files of a sibling. `joined` has the ids of those that use another's network,
    each with the id of the container whose network it is. `companions` are further containers whose processes or
    memory agents share, and `volumes` what is known of the volumes that agents use. `others` are all networks that
    are not ours.
    `secrets` are those that Envoy has for requests, or None if nothing depends on them.
    `publishers` are the containers, in any state, whose labels ask for published ports, `relays` are ours for
    these, and `publishing` is the network on which the engine publishes them.
    """

    engine: EngineFacts
    networks: Mapping[Role, NetworkView]
    siblings: Mapping[Sibling, ObservedSibling]
    leftovers: tuple[ObservedSibling, ...]
    images: Mapping[str, ImageView | None]
    attached: Mapping[Role, Mapping[str, Endpoint]]
    own_images: Mapping[OwnImage, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    orphans: tuple[str, ...] = ()
    spare_trust: tuple[VolumeView, ...] = ()
    lock: ContainerSummary | None = None
    trial: ContainerSummary | None = None
    listing: tuple[ContainerSummary, ...] = ()
    machine: Machine = dataclasses.field(default_factory=Machine)
    agents: tuple[ContainerView, ...] = ()
    joined: Mapping[str, str] = dataclasses.field(default_factory=dict)
    others: tuple[NetworkView, ...] = ()
    companions: tuple[ContainerView, ...] = ()
    volumes: Mapping[str, VolumeView] = dataclasses.field(default_factory=dict)
    secrets: HeldSecrets | None = None
    publishers: tuple[ContainerView, ...] = ()
    relays: tuple[ObservedRelay, ...] = ()
    publishing: NetworkView | None = None

    @property
    def subnets(self) -> tuple[IPv4Network, ...]:
        """The subnets of all networks that are not ours."""
        return tuple(subnet for network in self.others for subnet in network.subnets)

    @property
    def agents_subnet(self) -> IPv4Network | None:
        """The subnet of the agent network, if there is one."""
        network = self.networks.get(Role.AGENTS)
        return next(iter(network.subnets), None) if network else None

    @property
    def absent(self) -> bool:
        """Whether no part of the stack exists."""
        return not (self.networks or self.siblings or self.leftovers)

    @property
    def unfinished(self) -> bool:
        """Whether what is missing has not been made yet: a first run has not begun, or has not ended.

        A run that was killed leaves its lock. One that fails takes back what it has created.
        """
        return self.absent or self.lock is not None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that failed."""

    at: str
    """When it ended (RFC 3339), in UTC."""
    code: str
    """The error's code."""
    message: str
    context: tuple[str, ...]
