"""The answer of `status --all`, and how people see it: all stacks of an engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import NonNegativeInt
from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.agents.judge import Confinement
from clawker_fw.errors import FirewallError
from clawker_fw.model import EngineFacts, Sibling, Verdict
from clawker_fw.report.documents import Document
from clawker_fw.report.documents.parts import EngineVersion
from clawker_fw.report.spans import counted
from clawker_fw.report.status import StatusDocument
from clawker_fw.report.text import Rows, styled_verdict


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack in the list."""

    project: str
    verdict: Verdict
    running: tuple[Sibling, ...] = ()
    """The siblings that run."""
    live_rules: NonNegativeInt | None = None
    agents: NonNegativeInt = 0
    open_agents: tuple[str, ...] = ()
    settings: str | None = None
    """The file that the stack was made from, if it is on this machine."""
    reason: str | None = None
    """Why it can't be compared, if so."""

    @classmethod
    def of(cls, status: StatusDocument, settings: str | None) -> "Stack":
        """Return a stack from its status. `settings` is the file that it was made from."""
        return cls(
            status.project,
            status.verdict,
            tuple(each.name for each in status.siblings if each.state == "running"),
            status.live_rules,
            len(status.agents),
            tuple(each.name for each in status.agents if each.state is Confinement.OPEN),
            settings,
            status.unread.message if status.unread else None,
        )


def unreadable(project: str, error: FirewallError) -> Stack:
    """Return a stack that can't be observed."""
    return Stack(project, Verdict.UNKNOWN, reason=error.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class StacksAnswer(Document):
    """The answer of `status --all`."""

    engine: EngineVersion
    stacks: list[Stack]

    @classmethod
    def of(cls, stacks: list[Stack], facts: EngineFacts) -> "StacksAnswer":
        return cls(engine=EngineVersion(facts.endpoint, facts.named_by, facts.version), stacks=stacks)


def report(stacks: Sequence[Stack]) -> RenderableType:
    """Return the list for people."""
    rows: list[list[Text | str]] = [
        [
            each.project,
            styled_verdict(each.verdict),
            "-" if each.live_rules is None else f"{each.live_rules:,}",
            f"{each.agents:,}" + (f", {len(each.open_agents)} open" if each.open_agents else ""),
            " ".join(each.running) or "-",
            each.reason or each.settings or "-",
        ]
        for each in stacks
    ]
    current = sum(each.verdict is Verdict.CURRENT for each in stacks)
    head = Text(f"{current} of {counted(len(stacks), 'stack')} current")
    return Group(head, Rows(("project", "verdict", "rules", "agents", "running", "settings"), rows))
