"""The answer of `status`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, WithJsonSchema

from clawker_fw.denials.refusal import Counted
from clawker_fw.errors import FirewallError
from clawker_fw.model import EngineFacts, Observed, Role, Sibling, Verdict
from clawker_fw.report.documents import Document, Moment, SiblingVerdict
from clawker_fw.report.documents.parts import AgentDocument, Busy, SettingsUsed, StackVerdict, Warnings
from clawker_fw.report.facts import Leftovers, limited, live_version, program_version
from clawker_fw.report.status import MOST_REFUSALS, Status
from clawker_fw.stack.capacity import running


@dataclass(frozen=True, slots=True)
class StatusEngine:
    """The engine of a stack."""

    version: str
    architecture: str
    endpoint: str
    """The engine's address."""
    source: str
    """What chose it: an option, a variable, a docker context, or the default."""

    @classmethod
    def of(cls, engine: EngineFacts) -> "StatusEngine":
        """Return the engine."""
        return cls(engine.version, engine.architecture, engine.endpoint, engine.named_by)


@dataclass(frozen=True, slots=True)
class AttachmentDocument:
    """How agents are attached."""

    network: str
    """For `docker run --network`."""
    dns: Annotated[str, WithJsonSchema({"type": "string", "format": "ipv4"})]
    """For `docker run --dns`."""
    attached: list[str]
    """Containers on the agent network."""

    @classmethod
    def of(cls, status: Status) -> "AttachmentDocument | None":
        """Return it, unless the stack can't take agents."""
        if not status.attachable:
            return None
        names = sorted(status.observed.attached.get(Role.AGENTS, ()))
        return cls(status.attached.network, status.attached.dns, names)


@dataclass(frozen=True, slots=True)
class RefusedAgent(AgentDocument):
    """An agent, how well it is confined, and how often it was refused something."""

    refused: NonNegativeInt
    """How often it was refused something in the last hour, since it was started."""


@dataclass(frozen=True, slots=True)
class LastRefusal:
    """One of the last refusals."""

    agent: str | None
    """The name of the container, if one that is attached now had this address at the time."""
    address: str
    """The agent's address."""
    last: Moment
    times: PositiveInt
    sibling: Sibling
    protocol: str
    name: str | None
    port: NonNegativeInt
    reason: str

    @classmethod
    def of(cls, counted: Counted, who: str) -> "LastRefusal":
        """Return a refusal. `who` is the agent's name, or empty."""
        refusal = counted.refusal
        return cls(
            agent=who or None,
            address=refusal.agent,
            last=counted.last,
            times=counted.times,
            sibling=refusal.sibling,
            protocol=refusal.protocol,
            name=refusal.name or None,
            port=refusal.port,
            reason=refusal.reason,
        )


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
        return cls(
            name=sibling,
            verdict=verdict,
            container=container.name if container else None,
            state=container.status if container else "missing",
            health=(container.health or None) if container else None,
            image=container.image if container else None,
            build=(probe.build or None) if probe else None,
            version=program_version(seen) if seen else None,
            address=(container.connected.get(network) or None) if container else None,
            since=(container.started or None) if container else None,
            live_version=live_version(observed, sibling),
            resources=Resources(has.processors, has.memory, has.connections) if has else None,
            telemetry=Telemetry(probe.records.sent, probe.records.lost) if probe else None,
            limited=[
                Limited(name, each.source, each.connections, each.queries, each.datagrams)
                for name, each in limited(observed, sibling)
            ],
        )


@dataclass(frozen=True, slots=True)
class Ending:
    """A rule that ends."""

    rule: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Why the settings can't be read."""

    code: str
    message: str

    @classmethod
    def of(cls, error: FirewallError) -> "Unread":
        """Return why."""
        return cls(error.code, error.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDocument(Document):
    """The answer of `status`."""

    verdict: StackVerdict
    summary: list[str]
    """What the next `run` means, as lines for people: what happens and what agents notice, then why, as `drift`
    says it. Empty for a stack that is current, and while the settings can't be read."""
    busy: Busy
    warnings: Warnings
    project: str
    engine: StatusEngine
    settings: SettingsUsed
    agent: AttachmentDocument | None
    """null while no agent can be attached, also because the settings ask for another `network.subnet`."""
    agents: list[RefusedAgent]
    """The agents, sorted by name."""
    refusals: Annotated[list[LastRefusal], Field(max_length=MOST_REFUSALS)]
    """The last refusals of the last hour, the latest last. `denials` has all."""
    siblings: Annotated[list[SiblingStatus], Field(min_length=2, max_length=2)]
    rules: NonNegativeInt | None
    """How many rules the settings have; null if they can't be read."""
    live_rules: NonNegativeInt | None
    """The number of rules that the siblings serve; null if unknown."""
    live_protocols: dict[str, PositiveInt]
    """How many of the live rules there are of each protocol (`deny` for those that deny). Empty if that is
    unknown."""
    ending: list[Ending]
    """The rules that end, soonest first, and the seconds that are left of each."""
    other_rules: bool | None
    """Whether the settings have different rules than the siblings serve; null if unknown."""
    leftovers: Leftovers
    """What earlier runs and releases have left behind; `run` removes it."""
    unread: Unread | None
    """Why the settings can't be read, if so; else null."""

    @classmethod
    def of(cls, status: Status) -> "StatusDocument":
        """Return the answer."""
        observed, live, wanted = status.observed, status.live, status.wanted
        return cls(
            verdict=status.verdict,
            summary=list(status.summary),
            busy=status.busy,
            warnings=tuple(status.warnings),
            project=status.project,
            engine=StatusEngine.of(observed.engine),
            settings=SettingsUsed.of(status.blueprint, observed),
            agent=AttachmentDocument.of(status),
            agents=[RefusedAgent.of(each, status.refused.get(each.address, 0)) for each in status.agents],
            refusals=[LastRefusal.of(each, status.whose(each)) for each in status.refusals[-MOST_REFUSALS:]],
            siblings=[
                SiblingStatus.of(each, observed, status.attached.network, status.verdicts[each])
                for each in Sibling
            ],
            rules=wanted.count if wanted else None,
            live_rules=live.count if live else None,
            live_protocols=dict(sorted(status.protocols.items())),
            ending=[Ending(rule, round(seconds)) for rule, seconds in status.ending],
            other_rules=live != wanted if live and wanted else None,
            leftovers=status.leftovers,
            unread=Unread.of(status.unread) if status.unread else None,
        )
