"""The answer of `status`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, WithJsonSchema

from clawker_fw.denials.refusal import Counted
from clawker_fw.errors import FirewallError
from clawker_fw.model import Role
from clawker_fw.report.documents import Document
from clawker_fw.report.documents.denials import RefusalDocument, refused
from clawker_fw.report.documents.parts import (
    AgentDocument,
    Busy,
    EngineVersion,
    SettingsUsed,
    StackVerdict,
    Warnings,
)
from clawker_fw.report.facts import Leftovers
from clawker_fw.report.siblings import SiblingStatus
from clawker_fw.report.status import MOST_REFUSALS, Status


@dataclass(frozen=True, slots=True)
class StatusEngine(EngineVersion):
    """The engine of a stack."""

    architecture: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRefusal(RefusalDocument):
    """One of the last refusals."""

    agent: str | None
    """The name of the container, if one that is attached now had this address at the time."""
    address: str
    """The agent's address."""

    @classmethod
    def of(cls, counted: Counted, who: str) -> "LastRefusal":
        """Return a refusal. `who` is the agent's name, or empty."""
        return cls(**refused(counted), agent=who or None, address=counted.refusal.agent)


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
        observed, live, wanted = status.observed, status.live, status.wanted
        engine = observed.engine
        return cls(
            verdict=status.verdict,
            summary=list(status.summary),
            busy=status.busy,
            warnings=tuple(status.warnings),
            project=status.project,
            engine=StatusEngine(engine.endpoint, engine.named_by, engine.version, engine.architecture),
            settings=SettingsUsed.of(status.blueprint, observed),
            agent=AttachmentDocument.of(status),
            agents=[RefusedAgent.of(each, status.refused.get(each.name, 0)) for each in status.agents],
            refusals=[LastRefusal.of(*each) for each in status.refusals[-MOST_REFUSALS:]],
            siblings=status.siblings,
            rules=wanted.count if wanted else None,
            live_rules=live.count if live else None,
            live_protocols=dict(sorted(status.protocols.items())),
            ending=[Ending(rule, round(seconds)) for rule, seconds in status.ending],
            other_rules=live != wanted if live and wanted else None,
            leftovers=status.leftovers,
            unread=Unread.of(status.unread) if status.unread else None,
        )
