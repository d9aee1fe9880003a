"""What `status` says of a sibling: its container, its program, and what its limits have refused."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import NonNegativeInt, WithJsonSchema

from clawker_fw.model import Moment, Observed, ObservedSibling, Role, Sibling, Verdict
from clawker_fw.report.documents import SiblingVerdict
from clawker_fw.report.facts import live_version
from clawker_fw.stack import labels, versions
from clawker_fw.stack.capacity import running


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container may use."""

    processors: NonNegativeInt
    memory: NonNegativeInt
    """Bytes."""
    connections: NonNegativeInt
    """Of all agents together."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What became of the records of a sibling."""

    sent: NonNegativeInt
    lost: NonNegativeInt


@dataclass(frozen=True, slots=True)
class Limited:
    """What the limits of a sibling have refused of one agent."""

    agent: str | None
    """The container's name, or null if none with this address is attached."""
    address: str
    connections: NonNegativeInt
    queries: NonNegativeInt
    datagrams: NonNegativeInt


@dataclass(frozen=True, slots=True)
class SiblingStatus:
    """A sibling. Without a container, most is null."""

    name: Sibling
    verdict: SiblingVerdict
    container: str | None
    state: Annotated[
        str,
        WithJsonSchema(
            {"enum": ["missing", "created", "running", "paused", "restarting", "removing", "exited", "dead"]}
        ),
    ]
    health: Annotated[str | None, WithJsonSchema({"enum": ["starting", "healthy", "unhealthy", None]})]
    image: str | None
    """The id of the image."""
    build: str | None
    """The version string that the program reports."""
    version: str | None
    """The version that the program reports, else that of its image; null if both are unknown."""
    address: str | None
    """On the agent network."""
    since: Moment | None
    live_version: str | None
    """The version of the rules that the process serves; null when there is no single one."""
    resources: Resources | None
    """What the running container may use of the engine's machine; null if it is missing or does not say."""
    telemetry: Telemetry | None
    """Records since the sibling started: those that the collector has taken, and those that were lost; null if the
    sibling does not run."""
    limited: list[Limited]
    """What the limits have refused of each agent since the sibling started."""

    @classmethod
    def of(cls, sibling: Sibling, observed: Observed, network: str, verdict: Verdict) -> "SiblingStatus":
        """Return the state of one sibling. `network` is the name of the agent network."""
        seen = observed.siblings.get(sibling)
        container, probe = (seen.container, seen.probe) if seen else (None, None)
        has = running(seen) if seen else None
        names = {each.address: name for name, each in observed.attached.get(Role.AGENTS, {}).items()}
        return cls(
            name=sibling,
            verdict=verdict,
            container=container.name if container else None,
            state=container.status if container else "missing",
            health=(container.health or None) if container else None,
            image=container.image if container else None,
            build=(probe.build or None) if probe else None,
            version=_version(seen) if seen else None,
            address=(container.connected.get(network) or None) if container else None,
            since=(container.started or None) if container else None,
            live_version=live_version(observed, sibling),
            resources=Resources(has.processors, has.memory, has.connections) if has else None,
            telemetry=Telemetry(probe.records.sent, probe.records.lost) if probe else None,
            limited=[
                Limited(names.get(each.source), each.source, each.connections, each.queries, each.datagrams)
                for each in (probe.refused if probe else ())
            ],
        )


def _version(seen: ObservedSibling) -> str | None:
    """Return the version that a sibling's program reports, else that of its image; None if both are unknown."""
    reported = versions.of_build(seen.probe.build) if seen.probe else None
    applied = labels.read_applied(seen.container.labels)
    if reported or applied is None or (seen.sibling is Sibling.COREDNS and applied.image_ids):
        return reported  # the tag of a CoreDNS image that we built is our own version
    made = not applied.image_ids or seen.container.image in applied.image_ids
    return versions.of_reference(applied.image) if made else None
