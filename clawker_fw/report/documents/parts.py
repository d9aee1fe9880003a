"""The common parts of answers: settings, engine, agents, findings, and refusals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt

from clawker_fw.agents.exposure import Exposure, exposures
from clawker_fw.agents.judge import Agent, Confinement
from clawker_fw.denials.refusal import Counted
from clawker_fw.model.differences import Action, Cause, Diff, Finding, Layer, Value, Verdict
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.json_types import Moment
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import records
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.compare.rules import RuleChanges
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.lock import Holder
from clawker_fw.report.documents import SiblingVerdict
from clawker_fw.report.facts import unified_diff
from clawker_fw.settings.loaded import Loaded

StackVerdict = Annotated[
    Verdict,
    Field(
        description="The verdict on the stack: on Envoy and CoreDNS, or `open` if an agent has a way around the "
        "firewall."
    ),
]

Busy = Annotated[
    Holder | None,
    Field(
        description="Who is changing the stack at the moment, so that the answer may show a half-finished change; "
        "else null."
    ),
]

Warnings = Annotated[tuple[Advice, ...], Field(description="Warnings: things to know that are not differences.")]

Changes = Annotated[
    RuleChanges | None,
    Field(
        description="The rules that the difference adds and removes, each as one line of text. Null if those that "
        "were committed last are unknown."
    ),
]

Lines = Annotated[
    list[str],
    Field(
        description="What closing the differences means, as lines for people: what happens and what agents "
        "notice, then why. Empty for a stack that is current."
    ),
]


@dataclass(frozen=True, slots=True)
class SettingsNamed:
    """The settings that an answer is about."""

    path: str | None
    """The settings file; null when only environment variables are used."""
    source: str
    """What chose it: an option, a variable, or the place where it was found."""

    @classmethod
    def named(cls, loaded: Loaded, named_by: str) -> "SettingsNamed":
        return SettingsNamed(str(loaded.source.absolute()) if loaded.source else None, named_by)


@dataclass(frozen=True, slots=True)
class MadeFrom:
    """The settings file that a stack was made from."""

    path: str | None
    host: str
    project: str | None
    """The `project` in the file."""


@dataclass(frozen=True, slots=True)
class SettingsUsed(SettingsNamed):
    """The settings that an answer about a stack is about."""

    made_from: list[MadeFrom]
    """The settings file that the stack was made from: two after an interrupted run, none without a record."""
    open: Sequence[Exposure]
    """The mounts by which agents can write the settings."""

    @classmethod
    def of(cls, blueprint: Blueprint | None, observed: Observed) -> "SettingsUsed":
        """Return the settings. Without a blueprint, they are unreadable."""
        made_from = [
            MadeFrom(origin.path or None, origin.host, origin.project)
            for origin in records.recorded_origins(observed)
        ]
        if blueprint is None:
            return cls(None, "unreadable", made_from, [])
        path = blueprint.origin.path if blueprint.origin else None
        return cls(path or None, blueprint.named_by, made_from, exposures(observed, blueprint.files))


@dataclass(frozen=True, slots=True)
class EngineUsed:
    """The engine that an answer is about."""

    endpoint: str
    """The engine's address."""
    source: str
    """What chose it: an option, a variable, a docker context, or the default."""

    @classmethod
    def of(cls, engine: EngineFacts) -> "EngineUsed":
        return cls(engine.endpoint, engine.named_by)


@dataclass(frozen=True, slots=True)
class EngineVersion(EngineUsed):
    """The engine that an answer is about, and its version."""

    version: str


@dataclass(frozen=True, slots=True)
class AgentReason:
    """Why an agent is not fenced."""

    code: str
    text: str
    opens: bool
    """Whether it makes the agent open."""


@dataclass(frozen=True, slots=True)
class AgentDocument:
    """An agent, and how well it is confined."""

    name: str
    id: str
    image: str
    """As it was asked for."""
    address: str | None
    """On the agent network; null for a container that uses the network of another agent."""
    since: Moment | None
    """When it was started, in UTC."""
    state: Confinement
    """`weak` is a warning; `open` means that it has a way around the firewall."""
    reasons: list[AgentReason]
    published: list[str]
    """Its ports that are published now, as `ADDRESS:PORT:CONTAINER_PORT`."""

    @classmethod
    def of(cls, agent: Agent, *further: int) -> Self:
        openings = [(opening, True) for opening in agent.openings] + [
            (weakness, False) for weakness in agent.weaknesses
        ]
        reasons = [AgentReason(opening.code, opening.phrase, opens) for opening, opens in openings]
        address, since = agent.address or None, agent.since or None
        published = list(agent.published)
        return cls(
            agent.name, agent.id, agent.image, address, since, agent.confinement, reasons, published, *further
        )


@dataclass(frozen=True, slots=True)
class FindingDocument:
    """One difference. Where there is no value, it is null."""

    layer: Layer
    field: str
    running: Value
    """null where there is no value."""
    desired: Value
    """null where there is no value."""
    cause: Cause
    """`settings`: as we made it, but settings or rules have changed since. `machine`: what the Docker host
    has is different now, and no setting says what to use of it. `upgrade`: as another release made it. `tamper`:
    changed by somebody else."""
    action: Action
    """What `run` does about it."""


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a program: of the image that runs, and of the desired one."""

    running: str | None
    """null where it is unknown."""
    desired: str | None
    """null where it is unknown."""


@dataclass(frozen=True, slots=True)
class ImageFinding(FindingDocument):
    """A difference whose values are ids of images."""

    versions: Versions
    """The versions of the program."""


@dataclass(frozen=True, slots=True)
class FileFinding(FindingDocument):
    """A difference whose values are digests of files."""

    diff: str
    """A unified diff."""


def finding(finding: Finding) -> FindingDocument | ImageFinding | FileFinding:
    """Return a difference, with its versions or its diff."""
    values = (finding.layer, finding.field, finding.running, finding.desired, finding.cause, finding.action)
    if finding.versions:
        return ImageFinding(*values, Versions(*finding.versions))
    if finding.contents:
        return FileFinding(*values, "".join(unified_diff(finding)))
    return FindingDocument(*values)


@dataclass(frozen=True, slots=True)
class SiblingFindings:
    """How a sibling differs."""

    name: Sibling
    verdict: SiblingVerdict
    findings: list[FindingDocument | ImageFinding | FileFinding]

    @classmethod
    def both(cls, diff: Diff) -> "list[SiblingFindings]":
        return [
            cls(sibling, diff.verdicts[sibling], [finding(one) for one in diff.of(sibling)]) for sibling in Sibling
        ]


BothSiblings = Annotated[list[SiblingFindings], Field(min_length=2, max_length=2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalDocument:
    """What was refused, and how often."""

    last: Moment
    """When it happened last, by the engine's clock."""
    times: PositiveInt
    """How often."""
    sibling: Sibling
    """Which sibling refused."""
    protocol: str
    """`dns`, `tls`, `http`, `tcp` or `udp`."""
    name: str | None
    """The host that was asked for; null if nothing named one."""
    port: NonNegativeInt
    """The port that the agent has connected to."""
    reason: str
    """A word of the siblings' records, such as `no-rule`."""


def refused(counted: Counted) -> dict[str, Any]:
    """Return the fields of a `RefusalDocument`."""
    refusal = counted.refusal
    return {
        "last": counted.last,
        "times": counted.times,
        "sibling": refusal.sibling,
        "protocol": refusal.protocol,
        "name": refusal.name or None,
        "port": refusal.port,
        "reason": refusal.reason,
    }
