"""The answers about one stack: of `drift`, `run`, `reload`, `down` and `agent flags`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from clawker_fw.agents.attachment import DROPPED_CAPABILITY, NO_SEARCH_DOMAIN, Attachment
from clawker_fw.agents.judge import Agent
from clawker_fw.agents.trusted_roots import TARGET
from clawker_fw.model.differences import Verdict
from clawker_fw.model.observed import Attempt
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.reconcile.steps import Step, describe, described
from clawker_fw.reconcile.summary import Summary
from clawker_fw.report import summary
from clawker_fw.report.documents import Document, SiblingVerdict
from clawker_fw.report.documents.parts import (
    AgentDocument,
    BothSiblings,
    Busy,
    Changes,
    EngineUsed,
    Lines,
    SettingsUsed,
    SiblingFindings,
    StackVerdict,
    Warnings,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDocument(Document):
    """The answer of `drift`."""

    verdict: StackVerdict
    busy: Busy
    warnings: Warnings
    summary: Lines
    rules: Changes
    agents: list[AgentDocument] | None
    """The agents, sorted by name. Null with `--agents ignore`."""
    siblings: BothSiblings
    failed_attempt: Attempt | None
    """The last `run` or `reload`, if it failed and the difference is still there; else null."""
    settings: SettingsUsed
    engine: EngineUsed

    @classmethod
    def of(
        cls, comparison: Comparison, run_summary: Summary | None, verdict: Verdict, agents: Sequence[Agent] | None
    ) -> "DriftDocument":
        """Return the answer. `verdict` is the whole stack's; `agents` is None if they are left out."""
        return cls(
            verdict=verdict,
            busy=comparison.busy,
            warnings=comparison.advice,
            summary=summary.lines(run_summary),
            rules=comparison.rule_changes,
            agents=None if agents is None else [AgentDocument.of(agent) for agent in agents],
            siblings=SiblingFindings.both(comparison.diff),
            failed_attempt=comparison.failed_attempt,
            settings=SettingsUsed.of(comparison.blueprint, comparison.observed),
            engine=EngineUsed.of(comparison.blueprint.engine),
        )


Texts = Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MountDocument:
    """A volume that is mounted in an agent, and that it can't write."""

    volume: str
    """Its name."""
    target: str = TARGET
    """Where it is mounted."""
    read_only: Literal[True] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagsDocument(Document):
    """The answer of `agent flags`."""

    verdict: SiblingVerdict
    project: str
    flags: Texts
    """The words for `docker run`. The other fields say the same."""
    network: str
    """The only network of an agent (`HostConfig.NetworkMode`)."""
    dns: Texts
    """Its DNS servers (`HostConfig.Dns`)."""
    dns_search: Texts
    """Its search domains: `.` stands for none (`HostConfig.DnsSearch`)."""
    cap_drop: Texts
    """The capabilities to take from it (`HostConfig.CapDrop`)."""
    environment: dict[str, str]
    """Variables that the docker CLI would set otherwise, those of its own proxies, empty; and those by which
    programs find what they trust, if the stack inspects connections (`Env`)."""
    mounts: list[MountDocument]
    """The volume with what an agent trusts, if the stack inspects connections (`HostConfig.Mounts`)."""
    settings: SettingsUsed
    engine: EngineUsed

    @classmethod
    def of(cls, comparison: Comparison, attached: Attachment) -> "FlagsDocument":
        return cls(
            verdict=comparison.diff.verdict,
            project=comparison.desired.project,
            flags=list(attached.flags),
            network=attached.network,
            dns=[attached.dns],
            dns_search=[NO_SEARCH_DOMAIN],
            cap_drop=[DROPPED_CAPABILITY],
            environment=dict(attached.environment),
            mounts=[MountDocument(volume=attached.trust.volume)] if attached.trust else [],
            settings=SettingsUsed.of(comparison.blueprint, comparison.observed),
            engine=EngineUsed.of(comparison.blueprint.engine),
        )


StepDocument = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"kind": {"type": "string"}, "text": {"type": "string"}},
            "required": ["kind", "text"],
        }
    ),
]

Steps = Annotated[
    list[StepDocument],
    Field(
        description="What is done, in order. The `kind` of a step determines its other fields. Containers and "
        "networks are named, images by their references, or by the id of one without; `live` is the expected live "
        "digest of each resource. `text` is one line for people, the wording of which may change."
    ),
]


def _step(step: Step) -> dict[str, Any]:
    kind, sentence, fields = described(step)
    return {"kind": kind, **fields, "text": sentence}


@dataclass(frozen=True, slots=True)
class Note:
    """A note on a completed step."""

    step: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDocument(Document):
    """The answer of `run`, of a dry run, and of `reload`."""

    verdict: SiblingVerdict
    changed: bool
    """Whether anything was done."""
    warnings: Warnings
    summary: Lines
    rules: Changes
    steps: Steps
    notes: list[Note]
    """Notes on completed steps, for example how many connections were cut."""
    siblings: BothSiblings
    """What differed before."""
    settings: SettingsUsed
    engine: EngineUsed

    @classmethod
    def of(
        cls,
        before: Comparison,
        run_summary: Summary | None,
        after: Comparison,
        *,
        planned: Iterable[Step] = (),
        performed: Sequence[Progress] = (),
    ) -> "RunDocument":
        return cls(
            verdict=after.diff.verdict,
            changed=bool(performed),
            warnings=after.advice,
            summary=summary.lines(run_summary),
            rules=before.rule_changes,
            steps=[_step(step) for step in (*planned, *(done.step for done in performed))],
            notes=[Note(describe(done.step), done.note) for done in performed if done.note],
            siblings=SiblingFindings.both(before.diff),
            settings=SettingsUsed.of(after.blueprint, after.observed),
            engine=EngineUsed.of(after.blueprint.engine),
        )


@dataclass(frozen=True, slots=True)
class Left:
    """What `down` has kept."""

    images: tuple[str, ...]
    """Our images that no container uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownDocument(Document):
    """The answer of `down`."""

    project: str
    steps: Steps
    left: Left
    """What was kept; `down --all` removes it."""

    @classmethod
    def of(cls, project: str, performed: Sequence[Progress], left: Left) -> "DownDocument":
        return cls(project=project, steps=[_step(done.step) for done in performed], left=left)
