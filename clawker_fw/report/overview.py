"""The answer of `ps`: all stacks of an engine, for people and as a JSON document."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from clawker_fw.errors import FirewallError
from clawker_fw.model import EngineFacts, Sibling, Verdict
from clawker_fw.report.documents import SCHEMA
from clawker_fw.report.status import Status
from clawker_fw.report.text import Rows, styled_verdict


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack in the list. `running` are its siblings that run, `reason` is why there is no better verdict."""

    project: str
    verdict: Verdict
    running: tuple[str, ...] = ()
    rules: int | None = None
    agents: int = 0
    open_agents: tuple[str, ...] = ()
    settings: str = ""
    reason: str = ""

    @classmethod
    def of(cls, status: Status, settings: str) -> "Stack":
        """Return a stack from its status. `settings` is the file that it was made from."""
        siblings = status.observed.siblings
        return cls(
            status.project,
            status.verdict,
            tuple(each.value for each in Sibling if each in siblings and siblings[each].container.running),
            status.live.count if status.live else None,
            len(status.agents),
            tuple(each.name for each in status.agents if each.openings),
            settings,
            status.unread.message if status.unread else "",
        )


def unreadable(project: str, error: FirewallError) -> Stack:
    """Return a stack that can't be observed."""
    return Stack(project, Verdict.UNKNOWN, reason=error.message)


def document(stacks: Sequence[Stack], engine: EngineFacts) -> dict[str, Any]:
    """Return the answer as JSON."""
    return {
        "schema": SCHEMA,
        "engine": {"endpoint": engine.endpoint, "source": engine.named_by, "version": engine.version},
        "stacks": [
            {
                "project": each.project,
                "verdict": each.verdict.value,
                "running": list(each.running),
                "live_rules": each.rules,
                "agents": each.agents,
                "open_agents": list(each.open_agents),
                "settings": each.settings or None,
                "reason": each.reason or None,
            }
            for each in stacks
        ],
    }


def report(stacks: Sequence[Stack]) -> RenderableType:
    """Return the list for people."""
    rows: list[list[Text | str]] = [
        [
            each.project,
            styled_verdict(each.verdict),
            "-" if each.rules is None else f"{each.rules:,}",
            f"{each.agents:,}" + (f", {len(each.open_agents)} open" if each.open_agents else ""),
            " ".join(each.running) or "-",
            each.reason or each.settings or "-",
        ]
        for each in stacks
    ]
    return Rows(("project", "verdict", "rules", "agents", "running", "settings"), rows)
