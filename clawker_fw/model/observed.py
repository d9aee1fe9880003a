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
    """A container that serves, or served, as Envoy or CoreDNS. `probe` is None if and only if it does not run."""

    sibling: Sibling
    container: ContainerView
    slot: int
    files: Files = dataclasses.field(repr=False)
    probe: Probe | None

    @property
    def answers(self) -> bool:
        """Whether the sibling runs and answers."""
        return self.probe is not None and not self.probe.error


@dataclass(frozen=True, slots=True)
class ObservedRelay:
    """A container that forwards connections to one agent's published ports.

    `differences` is its helper's report on its network and ports; empty while it does not run.
    """

    container: ContainerView
    files: Files = dataclasses.field(repr=False)
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that was read from the engine for one decision.

    - `siblings` are the serving containers, `leftovers` our others, from an unfinished run. `orphans` are our
      volumes without a container, and `spare_trust` unused trust volumes.
    - `images` maps desired references and running image ids to the engine's images. `own_images` maps images that
      we built to the ids of containers made from them.
    - `attached` maps other containers on our networks to their endpoints. `others` are all networks that are not
      ours.
    - `lock` is the lock's container, which exists during a run and after a killed one; `trial` is that of
      `conformance`; `listing` is every other container of the engine.
    - `agents` are containers that are not ours and are on the agent network, use the network of one that is or of
      a firewall container, or have a firewall container's files. `joined` maps those that use another container's
      network to its id. `companions` are other containers whose processes or memory agents share, and `volumes`
      the agents' volumes.
    - `secrets` are those that Envoy has for requests, or None if nothing depends on them.
    - `publishers` are containers, in any state, whose labels request published ports; `relays` are ours for these,
      on the network `publishing`.
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
        """The subnet of the agent network, if it exists."""
        network = self.networks.get(Role.AGENTS)
        return next(iter(network.subnets), None) if network else None

    @property
    def absent(self) -> bool:
        """Whether no part of the stack exists."""
        return not (self.networks or self.siblings or self.leftovers)

    @property
    def unfinished(self) -> bool:
        """Whether a first run has not begun or not ended. A killed run leaves its lock; a failed one cleans up."""
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
