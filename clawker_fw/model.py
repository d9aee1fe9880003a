"""The values that the five verbs pass to each other. They are frozen and comparable, and make no decisions.

First the terms of the design (sibling, layer, finding), then the desired state, then what is read from an engine
and from `fwctl`. This module must not contain I/O, rendering or comparisons.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import PurePosixPath
from typing import Annotated, NamedTuple

from pydantic import AliasPath, Field, PlainSerializer, WithJsonSchema

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time as RFC 3339 writes it."""

OrNull = Annotated[str, PlainSerializer(lambda text: text or None, return_type=str | None)]
"""A text that is null in JSON if it is empty."""

Value = str | int | bool | None | tuple[str, ...]
"""A running or desired value in a finding, representable in JSON."""


class Sibling(StrEnum):
    """The two containers of the firewall."""

    ENVOY = "envoy"
    COREDNS = "coredns"


class Layer(StrEnum):
    """The aspects in which a sibling can differ from its desired state, in the order in which they are shown."""

    STATE = "state"
    LABELS = "labels"
    IMAGE = "image"
    SHAPE = "shape"
    BOOT = "boot"
    HOT = "hot"
    LIVE = "live"


class Cause(StrEnum):
    """Why a value differs: settings, release, the engine's machine or an agent, or somebody tampered with it.

    `agent`: one that publishes ports has come or gone.
    """

    SETTINGS = "settings"
    MACHINE = "machine"
    UPGRADE = "upgrade"
    AGENT = "agent"
    TAMPER = "tamper"


class Verdict(StrEnum):
    """The state of a sibling or a stack. `unknown` never counts as `current`.

    Only a stack can be `open`: an agent has a way around the firewall, whatever state the siblings are in.
    """

    CURRENT = "current"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"
    OPEN = "open"


class Action(StrEnum):
    """The action that resolves a finding. `none` is left to people: the cause is outside the stack."""

    CREATE = "create"
    REPLACE = "replace"
    COMMIT = "commit"
    GIVE = "give"
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
    PUBLISH = "publish"
    UNPUBLISH = "unpublish"
    NONE = "none"


CLOSING = frozenset(Action) - {Action.NONE}
"""The actions that a run can perform."""

RELAYING = frozenset({Action.PUBLISH, Action.UNPUBLISH})
"""The actions that are about the ports of one agent, and about no sibling."""


class Role(StrEnum):
    """The two networks of a stack."""

    AGENTS = "agents"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    If the values are digests of files, `contents` are the running and the desired content. If they are image ids,
    `versions` are the running and the desired program's versions, or None if unknown.
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
        """The worst verdict of both siblings. `drifted` is worse than `unknown`."""
        found = set(self.verdicts.values())
        return next(v for v in (Verdict.DRIFTED, Verdict.UNKNOWN, Verdict.CURRENT) if v in found)

    def of(self, sibling: Sibling) -> tuple[Finding, ...]:
        """Return the findings of one sibling."""
        return tuple(finding for finding in self.findings if finding.sibling is sibling)


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


@dataclass(frozen=True, slots=True)
class Inside:
    """The container of the engine in which this program runs, by its id.

    `host` is the name of the engine's machine. `mounts` are the places in the container that are not its own, each
    with what it is on that machine. `host_network` is whether the container shares the machine's network.
    """

    container: str
    host: str
    mounts: tuple[tuple[str, str], ...] = ()
    host_network: bool = False

    def on_host(self, path: str) -> str | None:
        """Return where a file of this container is on the engine's machine, or None if it is only in here."""
        return _moved(path, self.mounts)

    def in_here(self, path: str) -> str | None:
        """Return where a file of the engine's machine is in this container, or None if it is not."""
        return _moved(path, tuple((source, target) for target, source in self.mounts))


def _moved(path: str, places: tuple[tuple[str, str], ...]) -> str | None:
    """Return a path below another folder: that which belongs to the nearest folder of the path."""
    said = PurePosixPath(path)
    around = [(folder, other) for folder, other in places if said.is_relative_to(folder)]
    if not around:
        return None
    folder, other = max(around, key=lambda each: len(PurePosixPath(each[0]).parts))
    return str(PurePosixPath(other, said.relative_to(folder)))


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The properties of an engine. `architecture` is in Go's terms (`amd64`, `arm64`), `api_version` is in use.

    `routes` are the destinations of its machine's routes, including its own networks; they are only known for a
    local engine. `endpoint` is its address, and `named_by` the option, variable or context that named it.
    `kernel` is the version of its machine's kernel. That may be a virtual machine, also for a local engine.
    `plain` is whether others on the way there can read along. `inside` is the container of this engine that the
    program runs in, if it runs in one.
    """

    version: str
    api_version: str
    architecture: str
    routes: tuple[IPv4Network, ...] = ()
    endpoint: str = ""
    named_by: str = ""
    kernel: str = ""
    plain: bool = False
    inside: Inside | None = None

    @property
    def local(self) -> bool:
        """Whether the engine runs on this machine, according to its address."""
        return self.endpoint.startswith("unix://")

    @property
    def shares_network(self) -> bool:
        """Whether the network of the engine's machine is the one that this program sees."""
        return self.local and (self.inside is None or self.inside.host_network)


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine's machine has: processors, and bytes of memory. Either is 0 if the engine does not say.

    `forwards` is whether its kernel forwards packets of containers, as far as the engine says.
    `weights` is whether its kernel can give containers weights on the processors, `swap_limit` whether it can
    limit their swap. `runtime` is the engine's default runtime, or empty if that is runc.
    """

    processors: int = 0
    memory: int = 0
    forwards: bool = True
    weights: bool = True
    swap_limit: bool = True
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image on the engine."""

    id: str
    environment: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnImage:
    """An image that some release of ours built. `references` are the tags that it gave it, at least one."""

    id: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network on the engine. `gateway` is the bridge's own address, or empty.

    `sources_checked` is whether the host drops packets from it whose source it could not answer there; None if
    that can't be seen from here.
    """

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
    sources_checked: bool | None = None


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A volume on the engine. `options` are those of its driver."""

    name: str
    driver: str
    options: Mapping[str, str]
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's IPv4 address and MAC address on a network. Both are empty while it has none."""

    address: str
    hardware: str


ATTACHED = frozenset({"running", "paused"})
"""The states in which a container is connected to its networks."""


@dataclass(frozen=True, slots=True)
class ContainerSummary:
    """A container in a list, ours or another. `networks` maps network names to its endpoints.

    In `mounts`, the source of a volume is its folder on the host, if the engine reports it. `volumes` maps the
    places of volumes in it to their names, which are generated for anonymous ones. `namespace` is the id
    of the container whose network it uses instead of its own, or empty. `project` is the project for which we made
    it, by its labels and its form, or empty if it is somebody else's: labels alone never decide.
    """

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    status: str
    networks: Mapping[str, Endpoint]
    mounts: tuple[Mount, ...] = ()
    namespace: str = ""
    project: str = ""
    volumes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __hash__(self) -> int:
        """Return the hash of the id, because mappings can't be hashed."""
        return hash(self.id)

    @property
    def attached(self) -> bool:
        """Whether it is connected to its networks."""
        return self.status in ATTACHED


@dataclass(frozen=True, slots=True)
class ContainerView:
    """A container on the engine.

    `status` is the engine's term (`created running paused restarting exited dead`), and `health` is `starting`,
    `healthy`, `unhealthy` or empty. `started` is a time (RFC 3339). `connected` maps network names to addresses.
    `remembered` maps network names to the ids that they had when the container was last connected: at start, the
    engine looks for these ids, even if another network has the name by then. `restarts` counts the engine's
    automatic restarts since the last start by hand. `exit_code` is the last one, or 0 while the container runs.
    `reference` is the name by which the image was asked for. `network_mode` is the engine's term (`host`,
    `container:ID`, or the name of a network). `network_owner` is the id of the container with whose network it was
    started, usually its own: also where it has joined one that had joined another, and that is gone. It is empty
    before the first start. `may_lose_lines` is whether its log has the mode
    `non-blocking`, `logs_to` the driver of its log if that sends it over a network. `project` and `volumes` are as
    in a list. `requested` maps network names to the addresses that were asked for: IP and, as far as the engine
    tells them from those that it chose itself, MAC addresses. `published` are the ports that the engine publishes
    while the container runs, as `ADDRESS:PORT:CONTAINER_PORT/PROTOCOL`.
    """

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    shape: Shape
    status: str
    health: str
    started: str
    exit_code: int
    restarts: int
    connected: Mapping[str, str]
    remembered: Mapping[str, str]
    reference: str = ""
    network_mode: str = ""
    network_owner: str = ""
    may_lose_lines: bool = False
    logs_to: str = ""
    project: str = ""
    volumes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    requested: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    published: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """Whether the program runs and can be probed."""
        return self.status == "running"


@dataclass(frozen=True, slots=True)
class Refused:
    """What a sibling's limits have refused of one source address since the sibling started.

    A source is forgotten an hour after its last refusal.
    """

    source: str
    connections: int
    queries: int
    datagrams: int = 0
    """The helper of an earlier release does not count them."""


_Second = Annotated[float, Field(ge=-62_135_596_800, le=253_402_300_799, allow_inf_nan=False)]
"""One of the years 1 to 9999, since 1970."""


class CertificateUse(StrEnum):
    """The use of a certificate."""

    AUTHORITY = "authority"
    CLIENT = "client"
    SERVER = "server"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. Times are in seconds since 1970; `fingerprint` is SHA-256, in hexadecimal."""

    subject: str
    names: tuple[str, ...]
    begins: _Second
    ends: _Second
    fingerprint: Annotated[str, Field(validation_alias="sha256")]
    use: CertificateUse = CertificateUse.SERVER


@dataclass(frozen=True, slots=True)
class Records:
    """What became of a sibling's telemetry since it started: records that a collector has taken, and others."""

    sent: int = 0
    lost: int = 0


NO_RECORDS = Records()


@dataclass(frozen=True, slots=True)
class Restart:
    """A process beside a program that has ended and was started again.

    `count` is how often since the container started, `last` when the last time, and `reason` how it ended.
    """

    helper: str
    count: int
    last: str
    reason: str


@dataclass(frozen=True, slots=True)
class Probe:
    """The report of `fwctl probe`, from inside a container.

    `live` maps each hot resource to the digest of what the program has loaded.
    `others` lists other answers to ARP requests for our addresses, as `ADDRESS MAC-ADDRESS`.
    `network` lists the differences of the network namespace from the desired one, and `engine_files` those of the
    files that the engine mounts. `agents_see` maps a sibling to what CoreDNS found wrong when it used that sibling
    like an agent, and `dropped` are the siblings to whom no packet of agents gets. `refused` is what the limits
    have refused. `records` counts what has been sent to a collector,
    and `collector` is the certificate that it showed last, as far as the sibling sees it. `program` is the command
    line of the serving process, and `processes` are unknown ones, and missing ones. `restarts` are of those beside
    the serving one. `signer` is the reason for which the signer beside Envoy does not answer, `unhealthy` that for
    which a health check would fail now, and `error` that for which the program did not answer; all are empty if
    all is well. `secrets` is how many secrets for requests the signer has.
    """

    build: str = ""
    live: Mapping[str, str] = dataclasses.field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    claimed: bool = False
    others: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    engine_files: tuple[str, ...] = ()
    agents_see: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    records: Annotated[Records, Field(validation_alias="telemetry")] = NO_RECORDS
    collector: Annotated[Certificate | None, Field(validation_alias=AliasPath("telemetry", "collector"))] = None
    program: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    restarts: tuple[Restart, ...] = ()
    signer: str = ""
    secrets: int = 0
    unhealthy: str = ""
    error: str = ""


class SecretDifference(NamedTuple):
    """A secret that Envoy has and should not have, or should have: in words, or None without it.

    If it has the `same_value`, only where it is kept differs. If it is not `loaded`, the signer has what it
    should, and Envoy uses something else.
    """

    identity: str
    running: str | None
    desired: str | None
    same_value: bool = False
    loaded: bool = True


@dataclass(frozen=True, slots=True)
class ObservedSibling:
    """A container that serves, or served, as a sibling. `probe` is None if and only if it does not run.

    `secrets` are those for requests that differ from what it should have.
    """

    sibling: Sibling
    container: ContainerView
    slot: int
    files: Files = dataclasses.field(repr=False)
    probe: Probe | None
    secrets: tuple[SecretDifference, ...] = ()


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
    machine: Machine = Machine()
    agents: tuple[ContainerView, ...] = ()
    joined: Mapping[str, str] = dataclasses.field(default_factory=dict)
    others: tuple[NetworkView, ...] = ()
    companions: tuple[ContainerView, ...] = ()
    volumes: Mapping[str, VolumeView] = dataclasses.field(default_factory=dict)
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


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that failed."""

    at: str
    """When it ended (RFC 3339), in UTC."""
    code: str
    """The error's code."""
    message: str
    context: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of an engine. It is only a reason to compare, never a source of facts.

    `kind` is `container`, `network` or `image`, and `action` the engine's term (`die`, `disconnect`, `untag`, …).
    `names` are the names of the object, including a former one. `container` is the id of the container, also for
    the events in which it joins or leaves a network. `words` are the command of an `exec_start`, or the health
    status. `run` is the id of a program that is started in a container (`exec_start`) or has ended (`exec_die`).
    """

    kind: str
    action: str
    names: tuple[str, ...]
    container: str = ""
    words: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True)
class FoundAddress:
    """An address of a name. `closed` are the kinds of rules (`guarded`, `exempt`) that can't reach it."""

    address: str
    closed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lookup:
    """The IPv4 addresses of a name as Envoy sees them at the moment, or the reason why there is none."""

    addresses: tuple[FoundAddress, ...]
    error: str = ""

    def open_to(self, kind: str) -> tuple[str, ...]:
        """Return the addresses that can be reached with a kind of rules."""
        return tuple(each.address for each in self.addresses if kind not in each.closed)


@dataclass(frozen=True, slots=True)
class TrialStep:
    """A step of an attempt: `resolve`, `connect`, `handshake`, `request`, `wait` or `datagram`."""

    name: Annotated[str, Field(alias="step")]
    source: Annotated[str, Field(exclude=True)]
    """The address and port that the siblings' records name."""
    seconds: float
    ok: bool
    status: Annotated[int, PlainSerializer(lambda status: status or None, return_type=int | None)]
    """Of the HTTP response."""
    outcome: str


@dataclass(frozen=True, slots=True)
class Trial:
    """An attempt to use a name as an agent would: the steps until one failed."""

    steps: Annotated[tuple[TrialStep, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Use:
    """What is known of a name, protocol and port: when it was used first and last, and how much.

    A `name` with a dot before it is the subtree of a rule, and stands for all names that the rule has allowed.
    `protocol` is `https`, `http`, `tcp` or `udp`. `connections` are those that have ended, with the octets that
    were `received` from agents in them and `sent` to these.
    """

    protocol: Annotated[str, Field(pattern="^(https|http|tcp|udp)$")]
    name: str
    port: int
    first: float
    last: float
    connections: int
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class Usage:
    """All that is known. Nothing that was used after `since` is missing, but what was `lost`.

    `identity` is that of the recorder, and `inherited` are those of earlier ones whose knowledge is part of this.
    `open` are the connections that are open now, by port: those over `https` and `http` count when they end.
    `told` is all of it in the recorder's own form.
    """

    identity: Annotated[str, Field(validation_alias="id")]
    since: float
    now: float
    uses: tuple[Use, ...] = ()
    lost: int = 0
    inherited: frozenset[str] = frozenset()
    open: Mapping[str, int] = dataclasses.field(default_factory=dict)
    told: bytes = dataclasses.field(default=b"", repr=False, compare=False)
