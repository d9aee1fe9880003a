"""The answer of `fleet status`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import NonNegativeInt, WithJsonSchema

from clawker_fw.fleet.hosts import LeftOut
from clawker_fw.fleet.row import HostVerdict, NodeState, Row, StackRelease, Trouble
from clawker_fw.model import Sibling
from clawker_fw.report.documents import Document, Moment
from clawker_fw.report.documents.parts import FileFinding, FindingDocument, ImageFinding, SettingsNamed, finding
from clawker_fw.report.fleet import Fleet

Verdict = Annotated[
    HostVerdict,
    WithJsonSchema(
        {
            "enum": [each.value for each in HostVerdict],
            "description": "The verdict on the host's stack, as of `drift`; `no-stack` where nothing is up, and "
            "`unreachable` where nobody could ask. Only `current` is current.",
        }
    ),
]


@dataclass(frozen=True, slots=True)
class ReleaseUsed:
    """The release of this command."""

    version: str
    build: str


@dataclass(frozen=True, slots=True)
class LiveRules:
    """The rules that a host serves."""

    count: NonNegativeInt
    digest: str
    others_than_most: bool
    """Whether most hosts serve rules with another digest."""


@dataclass(frozen=True, slots=True)
class ProofDocument:
    """When the stack was known to be current the last time."""

    at: Moment
    by: Literal["comparison", "watcher"]
    """`comparison`: by this command. `watcher`: the host was not asked, and the manager of its swarm says that the
    watcher there is healthy."""


@dataclass(frozen=True, slots=True)
class SiblingFinding:
    """A difference, and of which sibling."""

    sibling: Sibling
    finding: FindingDocument | ImageFinding | FileFinding


@dataclass(frozen=True, slots=True)
class HostDocument:
    """One host. What is unknown is null."""

    name: str
    verdict: Verdict
    endpoint: str | None
    """The engine's address."""
    source: str | None
    """What named it: a docker context, an option, or the swarm."""
    error: Trouble | None
    """Why the host could not be asked, or its answers not be used."""
    engine: str | None
    """The engine's version."""
    release: StackRelease | None
    """The release that has made the stack."""
    rules: LiveRules | None
    agents: NonNegativeInt | None
    open_agents: tuple[str, ...]
    """The agents that have a way around the firewall."""
    proven: ProofDocument | None
    busy: str | None
    """Who is changing the stack at the moment."""
    summary: tuple[str, ...]
    """What closing the differences means, as lines for people."""
    made_from: tuple[str, ...]
    """The other settings files that the stack was made from."""
    node: NodeState | None
    """What the manager of the swarm knows, with `--swarm`."""
    seconds: float
    """How long it took to ask."""
    findings: list[SiblingFinding] | None
    """How it differs; null without `--diff`."""

    @classmethod
    def of(cls, fleet: Fleet, row: Row, *, findings: bool) -> "HostDocument":
        rules = row.rules
        return cls(
            name=row.name,
            verdict=row.verdict,
            endpoint=row.endpoint or None,
            source=row.source or None,
            error=row.trouble,
            engine=row.engine,
            release=row.release,
            rules=LiveRules(rules.count, rules.digest, fleet.other_rules(row)) if rules else None,
            agents=row.agents,
            open_agents=row.open_agents,
            proven=ProofDocument(row.proof.at, row.proof.by) if row.proof else None,
            busy=row.busy or None,
            summary=row.said,
            made_from=row.made_from,
            node=row.node,
            seconds=round(row.seconds, 3),
            findings=[SiblingFinding(each.sibling, finding(each)) for each in row.findings] if findings else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatusDocument(Document):
    """The answer of `fleet status`."""

    current: NonNegativeInt
    """How many hosts are current."""
    total: NonNegativeInt
    """How many hosts there are."""
    summary: str
    """The same in a sentence."""
    settings: SettingsNamed
    """The settings with which each host was compared."""
    release: ReleaseUsed
    left_out: tuple[LeftOut, ...]
    """Docker contexts that are of the same engine as another one."""
    hosts: list[HostDocument]
    """Sorted by name."""

    @classmethod
    def of(
        cls, fleet: Fleet, settings: SettingsNamed, release: ReleaseUsed, *, findings: bool = False
    ) -> "FleetStatusDocument":
        """Return the answer, with how each host differs if `findings` are wanted."""
        return cls(
            current=fleet.current,
            total=len(fleet.rows),
            summary=fleet.summary,
            settings=settings,
            release=release,
            left_out=fleet.left_out,
            hosts=[HostDocument.of(fleet, each, findings=findings) for each in fleet.rows],
        )
