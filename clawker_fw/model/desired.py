"""The desired state: files, images, shapes, networks, containers, and a whole stack."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from clawker_fw.model.vocabulary import Role, Sibling


@dataclass(frozen=True, slots=True)
class File:
    """A file. `owner` is its user and group as seen in the container.

    The content of a `secret` never appears in a finding, a diff, a label or a log. The `repr` of a file never
    contains its content, so tracebacks don't either. `secret` is ignored by comparisons, because a file that is
    read from a container does not say whether it is one.
    """

    content: bytes = dataclasses.field(repr=False)
    mode: int
    owner: tuple[int, int]
    secret: bool = dataclasses.field(default=False, compare=False)

    def __repr__(self) -> str:
        """Return a text without the content."""
        kind = "secret" if self.secret else f"{len(self.content)} bytes"
        return f"File({kind}, mode {self.mode:04o}, owner {self.owner})"

    def saying(self, content: bytes) -> "File":
        """Return the same file with other content."""
        return dataclasses.replace(self, content=content)


Files = Mapping[str, File]
"""Files by their path relative to the volume's root, separated by `/`."""


@dataclass(frozen=True, slots=True)
class Rules:
    """A summary of a stack's rules: their number, and the digest of their canonical form."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Image:
    """The image of a sibling.

    `ids` are the ids that a bundled image can have on an engine: the config digest (classic image store) and the
    manifest digest (containerd image store). They are empty for a registry reference, whose id is unknown until an
    engine has pulled it. `version` is None if the reference does not contain one. `oldest` is the oldest version
    that this release supports, or None for any.
    """

    sibling: Sibling
    reference: str
    ids: tuple[str, ...]
    version: str | None
    oldest: str | None = None

    @property
    def bundled(self) -> bool:
        """Whether we build this image ourselves instead of pulling it."""
        return bool(self.ids)


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """A container's HEALTHCHECK. Times are in seconds."""

    test: tuple[str, ...]
    interval: float
    timeout: float
    retries: int
    start_period: float


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount. `source` is empty for an anonymous volume, whose name is generated."""

    kind: str
    target: str
    source: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The configuration of a container, except its image, labels and files, with defaults for unset fields.

    `networks` maps network names to addresses, and `aliases` have the form `network:name`. `runtime` is empty for
    runc. `system_paths` lists the paths below /proc and /sys that are not masked, or not read-only, as they should
    be; it is "unconfined" if there are none at all. `init` is None where the engine's default decides. `hostname`
    is empty if it is the container's id. `processors` are CPU limits such as `NanoCpus=…`, `cpu_shares` is the
    weight, 0 for the engine's default, and `block_devices` are weights and limits such as `BlkioWeight=…`.
    `memory`, `memory_swap` (memory and swap together, -1 without a limit), `memory_reservation` and
    `shared_memory` are in bytes. `ulimits` are the resource limits that decide something, as `docker run --ulimit`
    writes them: `SOFT:HARD`, or one number for both; -1 is no limit. `log` has the driver and its bounds.
    `ports` are to be published, as `ADDRESS:PORT:CONTAINER_PORT/PROTOCOL`; without a port, the engine chooses it.
    `further` are options such as `OomScoreAdj=…` that no sibling has. Labels record shapes: a field that means
    something else gets another name.
    """

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    networks: Mapping[str, str]
    environment: tuple[str, ...] = ()
    user: str = ""
    working_directory: str = ""
    hostname: str = ""
    domain_name: str = ""
    terminal: bool = False
    init: bool | None = None
    stop_signal: str = ""
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
    cgroup_mode: str = ""
    uts_mode: str = ""
    userns_mode: str = ""
    system_paths: str = ""
    cgroup_parent: str = ""
    processors: tuple[str, ...] = ()
    cpu_shares: int = 0
    block_devices: tuple[str, ...] = ()
    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    shared_memory: int = 0
    pids: int = 0
    ulimits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    restart: str = ""
    healthcheck: Healthcheck | None = None
    log: Mapping[str, str] = dataclasses.field(default_factory=dict)
    further: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A bridge network to create. `gateway` is the bridge's own address, unless the options inhibit it."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    ip_range: IPv4Network
    internal: bool
    options: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ShippedPreset:
    """A preset as a release has it: its name, its version, and each of its rules as a line of text."""

    name: str
    version: int
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings come from: `path` is the settings file on `host`, or empty for the environment alone.

    `project` is the project that the file names, if any, and `digest` identifies the content of the settings.
    `presets` are those that the settings name, as the release had them.
    """

    path: str
    host: str
    project: str | None
    digest: str
    presets: tuple[ShippedPreset, ...] = ()

    def __str__(self) -> str:
        """Return the text that is shown to people."""
        meant = f", for project {self.project}" if self.project else ""
        return f"{self.path or 'the environment'} on {self.host}{meant}"


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to create: all parameters for the engine, and the files in its volume."""

    name: str
    image: str
    labels: Mapping[str, str]
    shape: Shape
    files: Files = dataclasses.field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Slots:
    """The slot of each sibling: which of its two sets of reserved addresses it uses (0 or 1)."""

    envoy: int = 0
    coredns: int = 0


@dataclass(frozen=True, slots=True)
class DesiredSibling:
    """The desired state of one sibling. `live` maps each resource to the digest that must be live.

    `later` are the same digests after each of the next times at which rules end: a sibling ends them by itself.
    `kept` are further files of a new container. They may differ afterwards. `from_machine` are the values that
    were chosen by what the engine's machine has.
    """

    sibling: Sibling
    image: Image
    labels: Mapping[str, str]
    shape: Shape
    boot: Files = dataclasses.field(repr=False)
    hot: Files = dataclasses.field(repr=False)
    live: Mapping[str, str]
    rules: Rules
    later: Sequence[Mapping[str, str]] = ()
    kept: Files = dataclasses.field(default_factory=dict, repr=False)
    from_machine: Mapping[str, int | str] = dataclasses.field(default_factory=dict)


def version_of(live: Mapping[str, str]) -> str:
    """Return 16 hexadecimal digits, derived from the digests of all resources, for people to compare."""
    return hashlib.sha256("".join(f"{name} {live[name]}\n" for name in sorted(live)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired state of a whole stack.

    `reserved` lists, for each network, the addresses that only siblings may have, in both slots. So are all of
    `blocks` on the agent network. `images` are the references of all images that this release uses with these
    settings. `unknown_ends` is how many times there are at which rules end and that the siblings don't know yet.
    `secrets` are the ids of those that Envoy puts into requests.
    """

    project: str
    service_address: IPv4Address
    reserved: Mapping[Role, tuple[str, ...]]
    blocks: tuple[IPv4Network, ...]
    networks: Mapping[Role, NetworkSpec]
    siblings: Mapping[Sibling, DesiredSibling]
    images: tuple[str, ...]
    unknown_ends: int = 0
    secrets: tuple[str, ...] = ()

    def is_reserved(self, role: Role, address: str) -> bool:
        """Whether only a sibling may have an address on a network."""
        if not address:
            return False
        in_block = role is Role.AGENTS and any(IPv4Address(address) in block for block in self.blocks)
        return in_block or address in self.reserved[role]

    @property
    def rules(self) -> Rules:
        """The rules that both siblings serve."""
        return self.siblings[Sibling.ENVOY].rules
