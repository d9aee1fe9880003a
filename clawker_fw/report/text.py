"""The answers for people: tables and diffs on standard output, progress and errors on standard error."""

import os
import re
import shlex
import sys
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.status import Status
from rich.table import Table
from rich.text import Text

from clawker_fw.errors import FirewallError
from clawker_fw.model import Attempt, Cause, Desired, Diff, Finding, Observed, Role, Sibling, Verdict
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.steps import Plan, Step, describe
from clawker_fw.report.documents import leftovers, live_version, program_version, unified_diff

_STYLES = {Verdict.CURRENT: "bold green", Verdict.DRIFTED: "bold yellow", Verdict.UNKNOWN: "bold red"}
_DIFF_STYLES = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green"}
_LONGEST_DIFF = 40
_LONGEST_VALUE = 60
_DIGEST_SHOWN = 12
_PLAIN_WIDTH = 140


class _Talk(Console):
    """What is told beside the answer. A change goes on when nobody listens to it any more."""

    def on_broken_pipe(self) -> None:
        """Fall silent."""
        self.quiet = True


def show_cursor() -> None:
    """Have the terminal show its cursor again, before the program ends in the middle of something."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")
        sys.stderr.flush()


def console(*, stderr: bool = False) -> Console:
    """Return a console that honours NO_COLOR, terminals and CI; without a terminal, lines are not broken."""
    stream = sys.stderr if stderr else sys.stdout
    interactive = stream.isatty() and not os.environ.get("CI")
    columns = os.environ.get("COLUMNS", "")
    return (_Talk if stderr else Console)(
        stderr=stderr,
        highlight=False,
        soft_wrap=not interactive,
        width=None if interactive else max(_PLAIN_WIDTH, int(columns) if columns.isdecimal() else 0),
        no_color=True if os.environ.get("NO_COLOR") else None,
        force_interactive=interactive,
    )


def drift_report(found: Diff, *, files: bool = True) -> RenderableType:
    """Return every finding by sibling, and the diffs of files below them."""
    parts: list[RenderableType] = []
    for sibling in Sibling:
        findings = found.of(sibling)
        versions = "".join(f"  {line}" for line in map(_versions, findings) if line)
        parts.append(Text.assemble((f"{sibling}", "bold"), "  ", _verdict(found.verdicts[sibling]), versions))
        if findings:
            parts.append(Padding(_table(findings), (0, 0, 0, 2), expand=False))
        if files:
            parts += [_file_diff(each) for each in findings if each.contents]
    return Group(*parts)


_PROGRAMS = {Sibling.ENVOY: "Envoy", Sibling.COREDNS: "CoreDNS"}


def _versions(finding: Finding) -> str:
    """Return which version another image would bring; "" where that can't be told."""
    running, desired = finding.versions or (None, None)
    if running is None or desired is None:
        return ""
    change = f"{running} → {desired}" if running != desired else f"{running}, another build of it"
    return f"{_PROGRAMS[finding.sibling]} {change}"


def _verdict(verdict: Verdict) -> Text:
    return Text(verdict.value, style=_STYLES[verdict])


def _table(findings: tuple[Finding, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("layer", "field", "running", "desired", "cause", "run would"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        cause_style = "red" if finding.cause is Cause.TAMPER else "cyan"
        table.add_row(
            finding.layer.value,
            escape(finding.field.removeprefix("dev.clawker.firewall.")),
            escape(_shown(finding.running)),
            escape(_shown(finding.desired)),
            Text(finding.cause.value, style=cause_style),
            finding.action.value,
        )
    return table


def _shown(value: object) -> str:
    """Return a value short enough for a table; the JSON answer has all of it."""
    text = "nothing" if value is None or value == () else value
    if isinstance(text, tuple):
        text = " ".join(shlex.quote(str(part)) for part in text)
    text = str(text)
    if re.fullmatch(r"(sha256:)?[0-9a-f]{40,}", text):
        return text[: text.find(":") + 1 + _DIGEST_SHOWN] + "…"
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _file_diff(finding: Finding) -> RenderableType:
    lines = list(unified_diff(finding))
    more = len(lines) - _LONGEST_DIFF
    body = Text(no_wrap=True)
    for line in lines[:_LONGEST_DIFF]:
        style = next((style for start, style in _DIFF_STYLES.items() if line.startswith(start)), "")
        body.append(f"  {line}", style)
    if more > 0:
        body.append(f"  … and {more} more lines", "dim")
    body.rstrip()
    return body


def plan_report(steps: Plan) -> RenderableType:
    """Return the steps of a plan; those of a number are performed side by side."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for number, stage in enumerate(steps.stages, 1):
        for place, step in enumerate(stage):
            table.add_row(Text("" if place else f"{number}", style="dim"), escape(describe(step)))
    return Group(Text("run would", style="bold"), Padding(table, (0, 0, 0, 2), expand=False))


def status_report(observed: Observed, desired: Desired, found: Diff, rules: int) -> RenderableType:
    """Return the state of both siblings, and how to attach an agent."""
    agents = desired.networks[Role.AGENTS].name
    attached = len(observed.attached.get(Role.AGENTS, ()))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("sibling", "verdict", "state", "health", "address", "since", "live version", "image"):
        table.add_column(heading, overflow="fold")
    for sibling in Sibling:
        seen = observed.siblings.get(sibling)
        container = seen.container if seen else None
        table.add_row(
            sibling.value,
            _verdict(found.verdicts[sibling]),
            container.status if container else "missing",
            (container.health if container else "") or "-",
            (container.connected.get(agents) if container else "") or "-",
            _moment(container.started) if container and container.running else "-",
            live_version(observed, sibling) or "-",
            " ".join((program_version(seen) or "", _shown(seen.container.image))).strip() if seen else "-",
        )
    rules_word = "rule" if rules == 1 else "rules"
    agents_word = "agent" if attached == 1 else "agents"
    summary = f"{desired.project} on engine {observed.engine.version}: {rules} {rules_word}"
    command = f"docker run --rm -it --network {agents} --dns {desired.service_address} --cap-drop NET_RAW IMAGE"
    return Group(
        Text.assemble(_verdict(found.verdict), f"  {summary}, {attached} {agents_word} attached"),
        Padding(table, (1, 0, 1, 2), expand=False),
        *(
            Text(f"Left over, `run` removes it: {kind.removesuffix('s')} {name}")
            for kind, names in leftovers(observed, desired).items()
            for name in names
        ),
        Text.assemble("Attach an agent:  ", (command, "bold")),
    )


def attempt_report(attempt: Attempt) -> RenderableType:
    """Return when the last attempt failed, and why."""
    return Group(
        Text.assemble(("The last attempt failed", "bold red"), f" at {attempt.at}: {attempt.message}"),
        *(Text(f"  {line}") for line in attempt.context),
    )


def _moment(timestamp: str) -> str:
    """Return an RFC 3339 time of the engine (always UTC) to the second."""
    return timestamp.partition(".")[0].replace("T", " ") + "Z"


def print_error(error: FirewallError, target: Console) -> None:
    """Print one error: its code and sentence, where, and what to do."""
    target.print(Text.assemble((f"error[{error.code}]", "bold red"), f": {error.message}"))
    for line in error.context:
        target.print(Text(f"  {line}"))
    if error.hint:
        target.print(Text.assemble(("hint", "bold"), f": {error.hint}"))


class StepDisplay:
    """Shows the steps of a plan as they are performed: a line for each that is done, and what is under way."""

    def __init__(self, target: Console) -> None:
        """Write to a console."""
        self._console = target
        self._status = Status("", console=target) if target.is_interactive else None
        self._running: dict[int, tuple[Step, float, str]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the lines that were printed."""
        if self._status:
            self._status.stop()

    def __call__(self, progress: Progress) -> None:
        """Take in what has happened to a step; steps that run side by side report at the same time."""
        with self._lock:
            key = id(progress.step)
            if progress.share >= 1:
                _, began, note = self._running.pop(key, (progress.step, time.monotonic(), ""))
                self._done(progress.step, time.monotonic() - began, progress.note or note)
            else:
                began = self._running[key][1] if key in self._running else time.monotonic()
                note = progress.note or (f"{progress.share:.0%}" if progress.share else "")
                self._running[key] = (progress.step, began, note)
            if self._status:
                self._status.update(" · ".join(_line(step, note) for step, _, note in self._running.values()))

    def _done(self, step: Step, seconds: float, note: str) -> None:
        tail = f"  {note}" if note and not note.endswith("%") else ""
        self._console.print(
            Text.assemble(("done", "green"), f"  {seconds:6.2f} s  {describe(step)}", (tail, "dim"))
        )


def _line(step: Step, note: str) -> str:
    return escape(f"{describe(step)} {note}".rstrip())
