"""The values that the five verbs hand to each other. Frozen, comparable, without behaviour that decides.

What lives here: the words of the design (sibling, layer, finding, step) and the shapes of what is read from and
written to an engine. What must not: I/O, rendering, comparing.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

Value = str | int | bool | None | tuple[str, ...]
"""A running or desired value in a finding; JSON can hold it."""

Files = Mapping[str, bytes]
"""Paths relative to the volume's root, with `/` between parts, to contents."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which rules a stack has, without the rules: how many, and the digest of their canonical form."""

    count: int
    digest: str


class Sibling(StrEnum):
    """The two containers that enforce."""

    ENVOY = "envoy"
    COREDNS = "coredns"


class Layer(StrEnum):
    """The places where a sibling can differ from what it should be, in the order in which they are shown."""

    STATE = "state"
    LABELS = "labels"
    IMAGE = "image"
    SHAPE = "shape"
    BOOT = "boot"
    HOT = "hot"
    LIVE = "live"


class Cause(StrEnum):
    """Why something differs: the settings or the release want another thing now, or it is not what we made."""

    SETTINGS = "settings"
    UPGRADE = "upgrade"
    TAMPER = "tamper"


class Verdict(StrEnum):
    """What can be said of a sibling or a stack. `unknown` is never taken for `current`."""

    CURRENT = "current"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"


class Action(StrEnum):
    """What closes a finding."""

    CREATE = "create"
    REPLACE = "replace"
    COMMIT = "commit"
    CLAIM = "claim"
    START = "start"
    UNPAUSE = "unpause"
    REATTACH = "reattach"
    REMOVE = "remove"
    RENAME = "rename"
    LOAD = "load"
    PULL = "pull"
    DETACH = "detach"
    RECREATE_NETWORKS = "recreate-networks"


class Role(StrEnum):
    """The two networks of a stack."""

    AGENTS = "agents"
    EGRESS = "egress"


# --- what should be -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    """An image a sibling is made from.

    `ids` are the ids it can have on an engine when they are known beforehand: the config digest (classic image
    store) and the manifest digest (containerd image store). They are empty for a registry reference, whose id
    only an engine that has pulled it knows. `version` is None where the reference does not tell; `oldest` is the
    oldest version that this release is made for, None for any.
    """

    sibling: Sibling
    reference: str
    ids: tuple[str, ...]
    version: str | None
    oldest: str | None = None

    @property
    def bundled(self) -> bool:
        """Whether we make this image ourselves, rather than pull it."""
        return bool(self.ids)


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """A container's HEALTHCHECK; times in seconds."""

    test: tuple[str, ...]
    interval: float
    timeout: float
    retries: int
    start_period: float


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount; an anonymous volume has no source that could be compared."""

    kind: str
    target: str
    source: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What a container is made with, beside its image and files: what we set, and what we leave at its default.

    `networks` maps a network's name to the address there, `aliases` are `network:name`; `memory` is in bytes;
    `runtime` is "" for runc; `system_paths` is "unconfined" when the masks over /proc and /sys are lifted;
    `processors` are limits on their use, `NanoCpus=…`.
    """

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    networks: Mapping[str, str]
    environment: tuple[str, ...] = ()
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    tmpfs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    read_only: bool = False
    privileged: bool = False
    capabilities_added: tuple[str, ...] = ()
    capabilities_dropped: tuple[str, ...] = ()
    security_options: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = dataclasses.field(default_factory=dict)
    devices: tuple[str, ...] = ()
    device_rules: tuple[str, ...] = ()
    device_requests: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    publish_all: bool = False
    volumes_from: tuple[str, ...] = ()
    runtime: str = ""
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    userns_mode: str = ""
    system_paths: str = ""
    cgroup_parent: str = ""
    processors: tuple[str, ...] = ()
    memory: int = 0
    pids: int = 0
    restart: str = ""
    healthcheck: Healthcheck | None = None
    log: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A bridge network to make. `gateway` is the bridge's own address, unless the options withhold it."""

    name: str
    role: Role
    subnet: IPv4Network
    gateway: IPv4Address
    ip_range: IPv4Network
    internal: bool
    options: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings come from. `path` is the file's, `""` for the environment alone; `host` is whose file it is.

    `project` is the one that the file names, `digest` tells what the settings say from what others do.
    """

    path: str
    host: str
    project: str | None
    digest: str

    def __str__(self) -> str:
        """Return it as people are told."""
        meant = f", for project {self.project}" if self.project else ""
        return f"{self.path or 'the environment'} on {self.host}{meant}"


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to make: everything the engine has to be told, and the files it starts with."""

    name: str
    image: str
    labels: Mapping[str, str]
    shape: Shape
    files: Files = dataclasses.field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Slots:
    """Which of its two reserved places each sibling has (0 or 1)."""

    envoy: int = 0
    coredns: int = 0

    def of(self, sibling: Sibling) -> int:
        """Return the sibling's slot."""
        return self.envoy if sibling is Sibling.ENVOY else self.coredns


@dataclass(frozen=True, slots=True)
class DesiredSibling:
    """What one sibling should be, in one slot. `live` maps each resource to the digest that must be live.

    `kept` is what a new container starts with beside its files, and what may differ.
    """

    sibling: Sibling
    slot: int
    image: Image
    labels: Mapping[str, str]
    shape: Shape
    boot: Files = dataclasses.field(repr=False)
    hot: Files = dataclasses.field(repr=False)
    live: Mapping[str, str]
    rules: Rules
    kept: Files = dataclasses.field(default_factory=dict, repr=False)

    @property
    def version(self) -> str:
        """All that must be live, for people: see `version_of`."""
        return version_of(self.live)


def version_of(live: Mapping[str, str]) -> str:
    """Return 16 hexadecimal digits that stand for the digests of all resources, for people to compare."""
    return hashlib.sha256("".join(f"{name} {live[name]}\n" for name in sorted(live)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Desired:
    """What a whole stack should be.

    `reserved` are the addresses on each network that nobody but a sibling may have, in either slot; `images` are
    the references of all images that this release and these settings use.
    """

    project: str
    service_address: IPv4Address
    reserved: Mapping[Role, tuple[str, ...]]
    networks: Mapping[Role, NetworkSpec]
    siblings: Mapping[Sibling, DesiredSibling]
    images: tuple[str, ...]

    @property
    def rules(self) -> Rules:
        """The rules that both siblings serve."""
        return self.siblings[Sibling.ENVOY].rules


# --- what is --------------------------------------------------------------------------------------------------


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
    """Something that happened on an engine: a reason to look, and no more than that.

    `kind` is `container`, `network` or `image`, and `action` the engine's word (`die`, `disconnect`, `untag`, …).
    `names` are those of what it happened to, a former one included; `container` is the id of the container that it
    happened to, or that a network got or lost; `words` are the command of an `exec_start`, or a state of health.
    """

    kind: str
    action: str
    names: tuple[str, ...]
    container: str = ""
    words: str = ""


# --- the difference -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    `contents` are the running and the desired content where the values are files' digests; `versions` are those of
    the running and the desired program where the values are ids of images, None where that can't be told.
    """

    sibling: Sibling
    layer: Layer
    field: str
    running: Value
    desired: Value
    cause: Cause
    action: Action
    contents: tuple[bytes, bytes] | None = dataclasses.field(default=None, repr=False)
    versions: tuple[str | None, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Diff:
    """All findings, and the verdict on each sibling."""

    findings: tuple[Finding, ...]
    verdicts: Mapping[Sibling, Verdict]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict; a difference that is known outranks one that could not be read."""
        found = set(self.verdicts.values())
        return next(v for v in (Verdict.DRIFTED, Verdict.UNKNOWN, Verdict.CURRENT) if v in found)

    def of(self, sibling: Sibling) -> tuple[Finding, ...]:
        """Return the findings of one sibling."""
        return tuple(finding for finding in self.findings if finding.sibling is sibling)
