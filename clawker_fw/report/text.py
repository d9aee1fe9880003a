"""The answers for people: tables and diffs on standard output, errors on standard error."""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.text import Text

from clawker_fw.agents.judge import Agent
from clawker_fw.errors import FirewallError
from clawker_fw.model.differences import Cause, Diff, Finding, Value, Verdict
from clawker_fw.model.observed import Attempt
from clawker_fw.model.origin import Origin
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.lock import Holder
from clawker_fw.reconcile.summary import Summary, is_follow_up
from clawker_fw.report import summary, terminal
from clawker_fw.report.commands import named
from clawker_fw.report.facts import changed_values, unified_diff
from clawker_fw.report.filediff import shortened
from clawker_fw.report.log import traceback
from clawker_fw.report.spans import counted
from clawker_fw.report.terminal import visible

Renderable = RenderableType
"""The type of printable values, for modules that must not import `rich`."""

_STYLES = {
    Verdict.CURRENT: "bold green",
    Verdict.DRIFTED: "bold yellow",
    Verdict.UNKNOWN: "bold red",
    Verdict.OBSERVING: "bold yellow",
    Verdict.OPEN: "bold red",
}
_DIFF_STYLES = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green"}
_RULE_STYLES = {summary.ADDED: "green", summary.REMOVED: "red"}
_LONGEST_DIFF = 40
_LONGEST_LINE = 200
_DIGEST_SHOWN = 7
_MOST_FIELDS = 12
_GAP = 2
_INDENT = 2
_USUAL_WIDTH = 80
_ANY_WIDTH = 1_000_000
"""Width without a terminal: lines are never wrapped or cut."""


class _Console(Console):
    """Prints commands with our options, escapes unprintable characters, and leaves long lines to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments to print, made safe: all output passes through here."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield Segment(visible(named(segment.text), keep="\n"), segment.style)

    def on_broken_pipe(self) -> None:
        """Stop printing. A change continues without a reader."""
        self.quiet = True


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console that honours NO_COLOR, terminals and CI. A `quiet` one prints nothing."""
    stream = sys.stderr if stderr else sys.stdout
    interactive = terminal.understands_escapes(stream) and not (quiet or os.environ.get("CI"))
    # `rich` prints nothing at a width of 0.
    width = _USUAL_WIDTH if re.fullmatch("0+", os.environ.get("COLUMNS", "")) else None
    return _Console(
        stderr=stderr,
        quiet=quiet,
        highlight=False,
        soft_wrap=True,
        width=width if interactive else _ANY_WIDTH,
        no_color=True if os.environ.get("NO_COLOR") else None,
        force_interactive=interactive,
    )


class Rows:
    """A table. If it is too wide, each row becomes a block of `key: value`."""

    def __init__(self, headings: Sequence[str], rows: Sequence[Sequence[Text | str]]) -> None:
        """Store headings and rows. Plain strings are made safe to print."""
        self._headings = headings
        self._rows = [
            [text if isinstance(text, Text) else Text(visible(named(text))) for text in row] for row in rows
        ]

    def __rich_console__(self, target: Console, options: ConsoleOptions) -> Iterable[Text]:
        """Yield lines."""
        lines = [[Text(heading, "dim") for heading in self._headings], *self._rows]
        widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
        if _INDENT + sum(widths) + _GAP * (len(widths) - 1) <= options.max_width:
            yield from (_joined(line, widths) for line in lines)
            return
        for row in self._rows:
            for position, (heading, value) in enumerate(zip(self._headings, row, strict=True)):
                yield Text.assemble(" " * _INDENT * (2 if position else 1), (f"{heading}: ", "dim"), value)


def _joined(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text(" " * _INDENT)
    for cell, width in zip(cells, widths, strict=True):
        line.append_text(cell)
        line.append(" " * (width - cell.cell_len + _GAP))
    line.rstrip()
    return line


def summary_report(run_summary: Summary) -> RenderableType:
    """Return what a plan means."""
    return Text("\n").join(
        Text(
            line,
            next((style for mark, style in _RULE_STYLES.items() if line.startswith(mark)), "" if at else "bold"),
        )
        for at, line in enumerate(summary.lines(run_summary))
    )


def drift_report(diff: Diff, run_summary: Summary, *, files: bool = False, hints: bool = True) -> RenderableType:
    """Return a difference's meaning, then its notable fields by layer. `files` adds all fields and the files.

    `hints` say how to see the rest.
    """
    shown = diff.findings if files else _shown_findings(diff, run_summary)
    parts: list[RenderableType] = [summary_report(run_summary)] if summary.lines(run_summary) else []
    parts.append(fields_report(diff, shown, files=files))
    left = len(diff.findings) - len(shown)
    if left and hints and not run_summary.absent:
        fields = counted(left, "more field" if shown else "field")
        parts.append(Text(f"{fields} {'differs' if left == 1 else 'differ'}; --diff shows all by layer.", "dim"))
    return Group(*parts)


def fields_report(diff: Diff, shown: Sequence[Finding], *, files: bool = False) -> RenderableType:
    """Return some findings by sibling and layer, with each sibling's verdict."""
    parts: list[RenderableType] = []
    for sibling in Sibling:
        findings = tuple(finding for finding in shown if finding.sibling is sibling)
        if findings:
            verdict = styled_verdict(diff.verdicts[sibling])
            parts += [Text.assemble("\n", (sibling.value, "bold"), "  ", verdict), _table(findings)]
        if files:
            parts += [_file_diff(finding) for finding in findings if finding.contents]
    return Group(*parts)


def _shown_findings(diff: Diff, summary: Summary) -> tuple[Finding, ...]:
    shown = () if summary.absent else tuple(finding for finding in diff.findings if not is_follow_up(finding))
    return shown if len(shown) <= _MOST_FIELDS else ()


def styled_verdict(verdict: Verdict) -> Text:
    """Return a verdict in its colour."""
    return Text(verdict.value, style=_STYLES[verdict])


def _table(findings: tuple[Finding, ...]) -> Rows:
    rows = [
        (
            finding.layer.value,
            finding.field.removeprefix(summary.PREFIX),
            *shortened(*map(_written, _differing(finding.running, finding.desired))),
            Text(finding.cause.value, "red" if finding.cause is Cause.TAMPER else "cyan"),
            finding.action.value,
        )
        for finding in findings
    ]
    return Rows(("layer", "field", "running", "desired", "cause", "run would"), rows)


def _differing(running: Value, desired: Value) -> tuple[Value, Value]:
    """Return both values, two lists without their common items unless only the order differs."""
    if not (isinstance(running, tuple) and isinstance(desired, tuple)) or {*running} == {*desired}:
        return running, desired
    return tuple(item for item in running if item not in desired), tuple(
        item for item in desired if item not in running
    )


def _written(value: object) -> str:
    """Return a value for a table, with digests cut. The JSON answer has it in full."""
    text = "nothing" if value is None or value == () else value
    if isinstance(text, tuple):
        text = shlex.join(text)
    text = str(text)
    if digest := re.fullmatch(rf"(?:sha256:)?([0-9a-f]{{{_DIGEST_SHOWN}}})[0-9a-f]{{33,}}(, .*)?", text):
        return f"{digest[1]}…{digest[2] or ''}"
    return text


def _file_diff(finding: Finding) -> RenderableType:
    lines = [finding.field, *(f"  {change}" for change in changed_values(finding))]
    if not lines[1:]:
        lines = list(unified_diff(finding))
    more = len(lines) - _LONGEST_DIFF
    body = Text()
    for line in lines[:_LONGEST_DIFF]:
        style = next((style for start, style in _DIFF_STYLES.items() if line.lstrip().startswith(start)), "")
        shown = visible(line.removesuffix("\n"))
        shown = shown if len(shown) <= _LONGEST_LINE else f"{shown[: _LONGEST_LINE - 1]}…"
        body.append(f"  {shown}\n", style)
    if more > 0:
        body.append(f"  … and {more} more lines", "dim")
    body.rstrip()
    return body


def attempt_report(attempt: Attempt) -> RenderableType:
    """Return when and why the last attempt failed."""
    return Group(
        Text.assemble(("The last attempt failed", "bold red"), visible(f" at {attempt.at}: {attempt.message}")),
        *(Text(visible(f"  {line}")) for line in attempt.context),
    )


def print_error(error: FirewallError, target: Console, *, debug: bool = False) -> None:
    """Print an error: code, message, context and hint; with `debug`, its traceback first."""
    if debug:
        target.print(Text(traceback(error)))
    lines = [Text.assemble((f"error[{error.code}]", "bold red"), visible(f": {error.message}"))]
    lines += [Text(visible(f"  {line}")) for text in error.context for line in text.splitlines()]
    if error.hint:
        lines.append(Text.assemble(("hint", "bold"), visible(f": {error.hint}")))
    target.print(Group(*lines))


def head(
    verdict: Verdict,
    words: str,
    *,
    at_work: Holder | None = None,
    warnings: Sequence[Advice] = (),
    agents: Sequence[Agent] = (),
    without_agents: Verdict = Verdict.CURRENT,
    made_from: Sequence[Origin] = (),
) -> RenderableType:
    """Return the verdict, and a line for a run at work, each warning and each open agent.

    The first line also has the advice. `without_agents` is the verdict on Envoy and CoreDNS.
    """
    advice = todo(verdict, without_agents, made_from)
    return Group(
        Text.assemble(styled_verdict(verdict), f"  {visible(f'{words}: {advice}' if advice else words)}"),
        *([busy_line(at_work)] if at_work else []),
        *(warning_line(warning) for warning in warnings),
        *(_open_agent(agent) for agent in agents if agent.openings),
    )


def todo(whole: Verdict, siblings: Verdict, made_from: Sequence[Origin] = ()) -> str:
    """Return the advice for a stack's verdict, or "". `siblings` is the verdict without agents.

    If the stack was `made_from` other settings, `run` refuses these.
    """
    close = [] if siblings.settled else ["close it with `clawker-fw run`"]
    if made_from:
        file = shlex.quote(made_from[0].path) if made_from[0].path else "its settings file"
        close = [f"it was made from {made_from[0]}: use `--config {file}`, or `clawker-fw run --adopt` for these"]
    return ", and ".join([*close, *(["stop the agents that bypass it"] if whole is Verdict.OPEN else [])])


def busy_line(holder: Holder) -> Text:
    """Return a line about the run at work, because the answer may show a half-finished change."""
    who = f"{holder.user} on {holder.host}, process {holder.process}"
    return Text(visible(f"Busy: {holder.command} has been changing this stack since {holder.since} ({who})."))


def warning_line(advice: Advice) -> Text:
    """Return one warning."""
    return Text.assemble(("warning", "bold yellow"), visible(f"[{advice.code}]: {advice.message}"))


def _open_agent(agent: Agent) -> Text:
    reasons = "; ".join(opening.phrase for opening in agent.openings)
    return Text.assemble(styled_verdict(Verdict.OPEN), visible(f"[agent]: {agent.name}: {reasons}"))
