"""What is, as it was read from an engine."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from clawker_fw.model.desired import (
    Mount,
    Shape,
)
from clawker_fw.model.files import Files
from clawker_fw.model.vocabulary import Role, Sibling


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Which engine this is. `architecture` is in Go's words (`amd64`, `arm64`).

    `routes` are what its machine has routes to, its own networks included, as far as that can be told. `endpoint`
    is its address, and `named_by` who named it.
    """

    version: str
    api_version: str
    architecture: str
    routes: tuple[IPv4Network, ...] = ()
    endpoint: str = ""
    named_by: str = ""

    @property
    def local(self) -> bool:
        """Whether its files are this machine's: as far as its address tells."""
        return self.endpoint.startswith("unix://")


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image on the engine."""

    id: str
    environment: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnImage:
    """An image that we made, of whichever release; `references` are the tags we gave it, at least one."""

    id: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network on the engine. `gateway` is the bridge's own address, or `""`."""

    id: str
    name: str
    driver: str
    internal: bool
    ipv6: bool
    subnets: tuple[IPv4Network, ...]
    gateway: str
    ip_range: IPv4Network | None
    options: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place on a network: the IPv4 and the hardware address, `""` while it has none."""

    address: str
    hardware: str


@dataclass(frozen=True, slots=True)
class ContainerSummary:
    """A container in a list, whoever made it. `networks` maps a network's name to the place there.

    Of its `mounts`, a volume's source is the folder on the host, where the engine tells it.
    """

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    status: str
    networks: Mapping[str, Endpoint]
    mounts: tuple[Mount, ...] = ()

    def __hash__(self) -> int:
        """Return that of the id: mappings have none."""
        return hash(self.id)


@dataclass(frozen=True, slots=True)
class ContainerView:
    """A container on the engine.

    `status` is the engine's word (`created running paused restarting exited dead`), `health` is `starting`,
    `healthy`, `unhealthy` or `""`, times are RFC 3339, `connected` maps each network to the address held now.
    `remembered` maps each network to the id that it had when the container was last on it: a stopped container
    looks for that one when it starts, whatever else has the name by then. `restarts` is how often the engine has
    started it again by itself, since somebody did; `exit_code` is that of the last end, 0 while it runs.
    """

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    shape: Shape
    status: str
    health: str
    created: str
    started: str
    exit_code: int
    restarts: int
    connected: Mapping[str, str]
    remembered: Mapping[str, str]

    @property
    def running(self) -> bool:
        """Whether the process runs and can be asked."""
        return self.status == "running"


@dataclass(frozen=True, slots=True)
class Probe:
    """What `fwctl probe` says from inside a container.

    `live` maps each hot resource to the digest of what the program has loaded. `others` names who else answers at
    our addresses, as `address hardware-address`; `network` lists how the network differs from what was asked,
    `engine_files` how files differ that the engine gives every container. `agents_see` maps siblings to what
    agents see of them and should not, as CoreDNS finds out. `program` is the command line of the process that
    serves, `processes` what runs beside it. `unhealthy` is why a health check would fail now, `error` why the
    program did not answer; both are `""` when all is well.
    """

    build: str = ""
    live: Mapping[str, str] = dataclasses.field(default_factory=dict)
    connections: int = 0
    addresses: tuple[str, ...] = ()
    claimed: bool = False
    others: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    engine_files: tuple[str, ...] = ()
    agents_see: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    program: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    unhealthy: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ObservedSibling:
    """A container that serves, or served, as a sibling. `probe` is None when, and only when, it does not run."""

    sibling: Sibling
    container: ContainerView
    slot: int
    files: Files = dataclasses.field(repr=False)
    probe: Probe | None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything read from the engine, once, for one decision.

    `siblings` holds the containers that serve; `leftovers` the others of ours, from a run that did not end.
    `images` maps each desired reference and each running id to what the engine has there. `subnets` are all that
    other networks take. `attached` maps the containers on each network that are not ours to their place there.
    `own_images` are those we made, each with the ids of the containers made from it, and `orphans` the volumes
    of ours that have lost their container. `lock` is there while somebody is at work, and when that was killed.
    `listing` is every container of the engine but the lock's.
    """

    engine: EngineFacts
    networks: Mapping[Role, NetworkView]
    subnets: tuple[IPv4Network, ...]
    siblings: Mapping[Sibling, ObservedSibling]
    leftovers: tuple[ObservedSibling, ...]
    images: Mapping[str, ImageView | None]
    attached: Mapping[Role, Mapping[str, Endpoint]]
    own_images: Mapping[OwnImage, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    orphans: tuple[str, ...] = ()
    lock: ContainerSummary | None = None
    listing: tuple[ContainerSummary, ...] = ()

    @property
    def absent(self) -> bool:
        """Whether there is no stack at all."""
        return not (self.networks or self.siblings or self.leftovers)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed attempt: when it ended (RFC 3339, UTC), and the error that ended it."""

    at: str
    code: str
    message: str
    context: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on an engine: a reason to look, and nothing else.

    `kind` is `container`, `network` or `image`, and `action` the engine's word (`die`, `disconnect`, `untag`, …).
    `names` are those of what it happened to, a former one included; `container` is the id of the container that it
    happened to, or that a network got or lost; `words` are the command of an `exec_start`, or a state of health.
    """

    kind: str
    action: str
    names: tuple[str, ...]
    container: str = ""
    words: str = ""
