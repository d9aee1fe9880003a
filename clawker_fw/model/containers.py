"""Containers: the configuration of one to create, and containers on an engine."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from clawker_fw.model.files import Files
from clawker_fw.model.networks import Endpoint


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

    Labels record shapes, so a field that changes its meaning gets a new name.

    - `networks` maps names to addresses; `aliases` are `network:name`; `hostname` is empty for the container's id.
    - `ports` to publish are `ADDRESS:PORT:CONTAINER_PORT/PROTOCOL`; without a port, the engine chooses it.
    - `init` is None for the engine's default, `runtime` empty for runc.
    - `system_paths` lists the paths below /proc and /sys that are not masked or read-only as they should be;
      "unconfined" means all of them.
    - `processors` are CPU limits (`NanoCpus=…`), `cpu_shares` the weight (0: the engine's default), and
      `block_devices` weights and limits (`BlkioWeight=…`).
    - Memory sizes are in bytes; `memory_swap` is memory and swap together, -1 without a limit.
    - `ulimits` are the relevant ones as in `docker run --ulimit`: `SOFT:HARD`, or one number; -1 is no limit.
    - `log` has the driver and its limits. `further` are options that the firewall never sets (`OomScoreAdj=…`).
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
class ContainerSpec:
    """A container to create: all parameters for the engine, and the files in its volume."""

    name: str
    image: str
    labels: Mapping[str, str]
    shape: Shape
    files: Files = dataclasses.field(default_factory=dict, repr=False)


ATTACHED = frozenset({"running", "paused"})
"""The states in which a container is connected to its networks."""


@dataclass(frozen=True, slots=True)
class ContainerSummary:
    """A container in a list, ours or another. `networks` maps network names to its endpoints.

    In `mounts`, a volume's source is its folder on the host, if the engine reports it. `volumes` maps mount points
    to volume names, which are generated for anonymous ones. `namespace` is the id of the container whose network
    it uses instead of its own, or empty. `project` is the project for which we made it, by its labels and its
    form, or empty: labels alone never decide.
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
        """Hash the id, because mappings can't be hashed."""
        return hash(self.id)

    @property
    def attached(self) -> bool:
        """Whether it is connected to its networks."""
        return self.status in ATTACHED


@dataclass(frozen=True, slots=True)
class ContainerView:
    """A container on the engine.

    - `status` is the engine's term (`created running paused restarting exited dead`); `health` is `starting`,
      `healthy`, `unhealthy` or empty; `started` is a time (RFC 3339).
    - `connected` maps network names to addresses. `remembered` maps them to the networks' ids at the last
      connection: at start, the engine looks for these ids, even if another network has the name then.
    - `requested` maps network names to requested addresses: IP and, if the engine tells them apart from its own
      choice, MAC addresses.
    - `restarts` counts automatic restarts since the last manual start. `exit_code` is 0 while it runs.
    - `reference` is the requested name of the image.
    - `network_mode` is the engine's term (`host`, `container:ID`, or a network's name). `network_owner` is the id
      of the container with whose network it started, usually its own, also if containers between are gone; empty
      before the first start.
    - `may_lose_lines`: its log's mode is `non-blocking`. `logs_to` is its log's driver if that uses a network.
    - `project` and `volumes` are as in a list. `published` are the ports that the engine publishes while it runs,
      as `ADDRESS:PORT:CONTAINER_PORT/PROTOCOL`.
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
