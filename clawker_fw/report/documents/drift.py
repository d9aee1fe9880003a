"""The answer of `drift`."""

from collections.abc import Sequence
from dataclasses import dataclass

from clawker_fw.agents.judge import Agent
from clawker_fw.model import Attempt, Verdict
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.reconcile.summary import Summary
from clawker_fw.report import summary
from clawker_fw.report.documents import Document
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
        cls, seen: Comparison, said: Summary | None, verdict: Verdict, agents: Sequence[Agent] | None
    ) -> "DriftDocument":
        """Return the answer. `verdict` is that on the whole stack; `agents` is None if they are left out."""
        return cls(
            verdict=verdict,
            busy=seen.busy,
            warnings=seen.advice,
            summary=summary.lines(said),
            rules=seen.rule_changes,
            agents=None if agents is None else [AgentDocument.of(each) for each in agents],
            siblings=SiblingFindings.both(seen.diff),
            failed_attempt=seen.failed_attempt,
            settings=SettingsUsed.of(seen.blueprint, seen.observed),
            engine=EngineUsed.of(seen.blueprint.engine),
        )
