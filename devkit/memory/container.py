"""The state of one container of the in-memory engine, and how the engine shows it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from clawker_fw.fwctl import PROTOCOL
from clawker_fw.model.containers import ATTACHED, ContainerSpec, ContainerSummary, ContainerView
from clawker_fw.model.files import File
from clawker_fw.model.networks import Endpoint
from clawker_fw.model.probes import NO_RECORDS, Certificate, Records, Refused
from clawker_fw.model.trials import Trial
from clawker_fw.model.usage import Usage
from clawker_fw.stack import labels
from clawker_fw.stack.resources import SIBLING

_HEALTH = {"created": "starting", "running": "healthy", "exited": "unhealthy"}
"""A Docker engine reports a stopped container as unhealthy."""


VERBS = frozenset(
    {
        "claim",
        "commit-in-place",
        "drain",
        "inherit-usage",
        "probe",
        "release",
        "secrets",
        "see",
        "suppressed",
        "usage",
    }
)
"""The verbs of this release's helper for its siblings, which a run depends on."""


@dataclass
class MemoryContainer:
    """The state of a container and of the program in it. Tests change the fields directly."""

    id: str
    spec: ContainerSpec
    image: str
    files: dict[str, File]
    networks: dict[str, str]
    remembered: dict[str, str] = field(default_factory=dict)
    status: str = "created"
    started: str = ""
    exit_code: int = 0
    restarts: int = 0
    log: list[str] = field(default_factory=list)
    logged_at: str = "2026-01-01T00:00:00.000000000Z"
    suppressed: int = 0
    lines: int | None = None
    counted: list[dict[str, object]] = field(default_factory=list)
    """Refusals that the recorder has counted and not logged yet, as records."""
    limited: dict[str, int] = field(default_factory=dict)
    """Queries and datagrams that its limits have dropped, by the agent's address."""
    usage: Usage | None = None
    """What agents have used, as far as its recorder knows, if not nothing since it was created."""
    live: dict[str, str] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    connections: int = 0
    lingering: int = 0
    network_differences: tuple[str, ...] = ()
    agents_see: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    secrets: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    """By id: the value, and when it was given."""
    secrets_at_rest: set[str] = field(default_factory=set)
    secrets_unloaded: set[str] = field(default_factory=set)
    """The ids of those of which the program goes on using what it had before."""
    others: tuple[str, ...] = ()
    failed_checks: int | None = 0
    refused: tuple[Refused, ...] = ()
    records: Records = NO_RECORDS
    collector: Certificate | None = None
    program: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    zone: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tried: Trial | None = None
    """What an attempt from it would find, if not what its own list of names says."""
    silent: str = ""
    health: str = ""
    unhealthy: str = ""
    build: str = "memory"
    network_mode: str = ""
    network_owner: str = ""
    """The id of the container whose network it has joined."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """The names of its volumes, by their places."""
    logs_to: str = ""
    chosen_ports: dict[str, int] = field(default_factory=dict)
    """The ports that the engine has chosen when it was started, by what was asked for."""
    relayed: tuple[str, ...] = ()
    protocol: int = PROTOCOL
    verbs: frozenset[str] = VERBS
    """The protocol and the verbs of its helper."""
    volume: Mapping[str, str] | None = None
    """The labels that were requested for its volume at `/fw`, or None without such a request."""

    @property
    def keeps_usage(self) -> bool:
        sibling = self.files.get(SIBLING)
        return sibling is not None and "usage" in json.loads(sibling.content)


def is_published(port: str) -> bool:
    return port.count(":") == 2  # noqa: PLR2004 - as in `ADDRESS:PORT:CONTAINER_PORT/PROTOCOL`


def summary_of(inside: MemoryContainer) -> ContainerSummary:
    """Return the container as a list shows it. The MAC address is derived from the id."""
    attached = inside.status in ATTACHED
    hardware = ":".join(["02", *(inside.id[-10:][at : at + 2] for at in range(0, 10, 2))])
    return ContainerSummary(
        id=inside.id,
        name=inside.spec.name,
        image=inside.image,
        labels=dict(inside.spec.labels),
        status=inside.status,
        networks={
            name: Endpoint(address, hardware) if attached else Endpoint("", "")
            for name, address in inside.networks.items()
        },
        mounts=inside.spec.shape.mounts,
        namespace=inside.network_mode.removeprefix("container:") if ":" in inside.network_mode else "",
        project=labels.project_of_container(inside.spec.labels, inside.volume),
        volumes=dict(inside.volumes),
    )


def view_of(inside: MemoryContainer) -> ContainerView:
    attached = inside.status in ATTACHED
    published: dict[str, str] = {}
    for each in filter(is_published, inside.spec.shape.ports):
        host, at, port = each.split(":")
        published[each] = f"{host}:{at or inside.chosen_ports[each]}:{port}" if inside.status == "running" else ""
    return ContainerView(
        id=inside.id,
        name=inside.spec.name,
        image=inside.image,
        labels=dict(inside.spec.labels),
        shape=replace(
            inside.spec.shape,
            networks={name: inside.spec.shape.networks.get(name, "") for name in inside.networks},
        ),
        status=inside.status,
        health=(inside.health or _HEALTH.get(inside.status, "")) if inside.spec.shape.healthcheck else "",
        started=inside.started,
        exit_code=inside.exit_code,
        restarts=inside.restarts,
        connected={name: address if attached else "" for name, address in inside.networks.items()},
        remembered={name: inside.remembered.get(name, "") for name in inside.networks},
        reference=inside.spec.image,
        network_mode=inside.network_mode or next(iter(inside.networks), "none"),
        logs_to=inside.logs_to,
        network_owner=(inside.network_owner or inside.id) if inside.started else "",
        project=labels.project_of_container(inside.spec.labels, inside.volume),
        volumes=dict(inside.volumes),
        requested={name: (address,) for name, address in inside.spec.shape.networks.items() if address},
        published=tuple(sorted(filter(None, published.values()))),
    )
