"""Plans and their progress as text."""

import threading

from rich.console import Console, Group, RenderableType
from rich.status import Status
from rich.text import Text

from clawker_fw.model.differences import Diff
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.steps import InTurn, Plan, describe
from clawker_fw.reconcile.summary import Summary
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import drift_report

_SPINNER = 2


def plan_report(steps: Plan) -> RenderableType:
    """Return the numbered stages of a plan. Steps of a stage run in parallel, except those with `then`."""
    width = len(str(len(steps.stages)))
    lines: list[Text] = []
    for number, stage in enumerate(steps.stages, 1):
        texts = [
            f"{'then ' if later else ''}{describe(step)}"
            for planned_step in stage
            for later, step in enumerate(
                planned_step.steps if isinstance(planned_step, InTurn) else (planned_step,)
            )
        ]
        for place, text in enumerate(texts):
            first = "" if place else str(number)
            lines.append(Text.assemble("  ", (first.ljust(width), "dim"), "  ", visible(text)))
    return Group(Text("\nrun would", style="bold"), *lines)


class StepDisplay:
    """Shows a plan being performed: a line for each completed step, and a spinner (`status`) for the others."""

    def __init__(self, target: Console, *, files: bool = False, stack: str = "") -> None:
        """Store how to show it. `stack` is named in each line if several are changed side by side."""
        self._console = target
        self._files = files
        self._stack = stack
        self.status = Status("", console=target) if target.is_interactive and not stack else None
        self._running: dict[int, str] = {}
        self._lock = threading.Lock()

    def difference(self, diff: Diff, run_summary: Summary) -> None:
        """Show what will happen, and why."""
        report = drift_report(diff, run_summary, files=self._files, hints=False)
        name = [Text(visible(self._stack), style="bold")] if self._stack else []
        self._console.print(Group(*name, report))

    def __call__(self, progress: Progress) -> None:
        """Record the progress of a step. Parallel steps call this concurrently."""
        key, step, note = id(progress.step), describe(progress.step), progress.note
        if self._stack:
            step = f"{self._stack}: {step}"
        with self._lock:
            if progress.share >= 1:
                self._running.pop(key, None)
                done = visible(f"  {progress.seconds:6.2f} s  {step}")
                self._console.print(
                    Text.assemble(("done", "green"), done, (visible(f"  {note}" if note else ""), "dim"))
                )
            else:
                note = note or (f"{progress.share:.0%}" if progress.share else "")
                self._running[key] = visible(f"{step} {note}".rstrip())
            if self.status:
                shown = Text(" · ".join(self._running.values()), no_wrap=True)
                shown.truncate(max(1, self._console.width - _SPINNER), overflow="ellipsis")
                self.status.update(shown)
