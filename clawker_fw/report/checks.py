"""The answers of `doctor` and `conformance`, and their text form."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.diagnose.conformance.run import CaseResult
from clawker_fw.diagnose.diagnosis import Check, CheckHealth
from clawker_fw.report.documents import Document
from clawker_fw.report.spans import counted
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import Rows

_HELD, _BROKEN = Text("held", "green"), Text("BROKEN", "bold red")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceAnswer(Document):
    """The answer of `conformance`."""

    project: str
    held: bool
    """Whether everything ended as it must."""
    attempts: list[CaseResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorAnswer(Document):
    """The answer of `doctor`."""

    healthy: bool
    """Whether no check has failed."""
    checks: list[Check]


def conformance_report(answer: ConformanceAnswer) -> RenderableType:
    """Return the text of an answer: how much held, then each attempt, failed ones first."""
    rows: list[list[Text | str]] = [
        [
            _HELD if attempt.held else _BROKEN,
            "control" if attempt.control else "attack",
            attempt.what,
            attempt.outcome,
        ]
        for attempt in sorted(answer.attempts, key=lambda attempt: attempt.held)
    ]
    attacks = [attempt.held for attempt in answer.attempts if not attempt.control]
    controls = [attempt.held for attempt in answer.attempts if attempt.control]
    words = (
        f"{answer.project}: {sum(attacks)} of {len(attacks)} attacks were stopped, "
        f"{sum(controls)} of {len(controls)} controls got through"
    )
    lines = [Text(visible(words), "bold green" if answer.held else "bold red")]
    if not answer.held:
        lines.append(Text("`clawker-fw drift` and `clawker-fw doctor` say what may be wrong. If not, report it."))
    return Group(*lines, Text(""), Rows(("result", "kind", "what was tried", "what happened"), rows))


_STYLES = {
    CheckHealth.OK: "green",
    CheckHealth.WARNING: "yellow",
    CheckHealth.FAILED: "bold red",
    CheckHealth.SKIPPED: "dim",
}
_WIDEST = max(map(len, CheckHealth))


def doctor_report(checks: Sequence[Check]) -> RenderableType:
    """Return the text of an answer: whether all is well, then each check and its advice."""
    healths = [check.health for check in checks]
    failed, warned = healths.count(CheckHealth.FAILED), healths.count(CheckHealth.WARNING)
    words = f"  {len(healths)} checks, {counted(warned, 'warning')}"
    lines = [
        Text.assemble(("unhealthy", "bold red"), f"{words}, {failed} failed: follow the arrows (→)")
        if failed
        else Text.assemble(("healthy", "bold green"), words)
    ]
    for check in checks:
        state = check.health.value.ljust(_WIDEST), _STYLES[check.health]
        lines.append(Text.assemble(state, visible(f"  {check.name}: {check.seen}")))
        if check.advice:
            lines.append(Text(visible(f"{' ' * _WIDEST}  → {check.advice}")))
    return Group(*lines)
