"""What should be: images, shapes, networks, containers, and a whole stack."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from clawker_fw.model.files import Files
from clawker_fw.model.vocabulary import Role, Sibling


@dataclass(frozen=True, slots=True)
class Rules:
    """Which rules a stack has, without the rules: how many, and the digest of their canonical form."""

    count: int
    digest: str


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
