"""The answers of `doctor` and `conformance`, and how people see them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from clawker_fw.diagnose.conformance.run import CaseResult
from clawker_fw.diagnose.diagnosis import Check, CheckHealth
from clawker_fw.report.documents import Document
from clawker_fw.report.spans import counted
from clawker_fw.report.terminal import folded, visible
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
    """Return the answer for people: how much held, then each attempt, with those that did not hold first."""
    rows: list[list[Text | str]] = [
        [_HELD if each.held else _BROKEN, "control" if each.control else "attack", each.what, each.outcome]
        for each in sorted(answer.attempts, key=lambda each: each.held)
    ]
    attacks = [each.held for each in answer.attempts if not each.control]
    controls = [each.held for each in answer.attempts if each.control]
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


class DoctorReport:
    """The answer for people: a paragraph for each check, and one for what to do. Commands stay in one line."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = checks

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield lines that fit the terminal: what came of it all, then each check."""
        yield self._verdict()
        for each in self._checks:
            state = each.health.value.ljust(_WIDEST)
            first, *others = folded(visible(f"{state}  {each.name}: {each.seen}"), options.max_width, _WIDEST + 2)
            yield _line(first, _STYLES[each.health], len(state))
            yield from map(_line, others)
            if each.advice:
                advice = f"{' ' * _WIDEST}  → {each.advice}"
                yield from map(_line, folded(visible(advice), options.max_width, _WIDEST + 4))

    def _verdict(self) -> Text:
        """Return the line that says whether all is well, and what to do."""
        found = [each.health for each in self._checks]
        failed, warned = found.count(CheckHealth.FAILED), found.count(CheckHealth.WARNING)
        words = f"{len(found)} checks, {counted(warned, 'warning')}"
        if not failed:
            return Text.assemble(("healthy", "bold green"), f"  {words}")
        return Text.assemble(("unhealthy", "bold red"), f"  {words}, {failed} failed: follow the arrows (→)")


def _line(words: str, style: str = "", styled: int = 0) -> Text:
    line = Text(words, no_wrap=True, overflow="ignore")
    line.stylize(style, 0, styled)
    return line
