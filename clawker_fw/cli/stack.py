"""The commands that compare or change one stack: run, drift, reload and down."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session, stacks
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import (
    AdoptOption,
    Agents,
    AgentsOption,
    DiffOption,
    DryRunOption,
    Format,
    FormatOption,
    LockOption,
    Options,
    WithoutSecretsOption,
    unparsed,
)
from clawker_fw.cli.session import reading, writing
from clawker_fw.cli.stacks import Answer
from clawker_fw.errors import ExitCode, RefusedError
from clawker_fw.report import log

if TYPE_CHECKING:
    from clawker_fw.agents.judge import Agent
    from clawker_fw.model.differences import Verdict
    from clawker_fw.reconcile.advice import Advice
    from clawker_fw.reconcile.apply import Progress, RunContext
    from clawker_fw.reconcile.pipeline import Comparison
    from clawker_fw.reconcile.steps import ConvergeOptions, Plan
    from clawker_fw.reconcile.summary import Summary
    from clawker_fw.report.step_display import StepDisplay
    from clawker_fw.report.step_records import StepRecords
    from clawker_fw.report.text import Renderable
    from clawker_fw.settings.loaded import Loaded

_STOPPING = (
    "Finishing the current step, then stopping. Press Ctrl-C again to stop immediately; "
    "the next run completes the rest."
)


@app.command()
def run(
    context: typer.Context,
    *,
    dry_run: DryRunOption = False,
    force_recreate: Annotated[
        bool, typer.Option("--force-recreate", help="Replace Envoy and CoreDNS even if they are current.")
    ] = False,
    adopt: AdoptOption = False,
    without_secrets: WithoutSecretsOption = False,
    remove_orphans: Annotated[
        bool,
        typer.Option(
            "--remove-orphans",
            help="Remove the stacks of groups that the settings no longer have, unless agents use them.",
        ),
    ] = False,
    diff: DiffOption = False,
    lock_wait: LockOption = unparsed("0s"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Bring the stack up, or up to date with settings and release.

    The settings, the rules and this release define the desired state. Shows what will happen and why, closes the
    differences without dropping a request, and proves the result. A current stack is left unchanged.

    Example: clawker-fw run --dry-run
    """
    from clawker_fw.reconcile.steps import ConvergeOptions

    options = ConvergeOptions(replace_all=force_recreate, adopt=adopt, secrets_needed=not without_secrets)
    if dry_run:
        stacks.answer(context.obj, lambda one: _planned(one, options, files=diff, creates=True), format_)
        return
    if remove_orphans:
        _remove_orphans(context.obj, lock_wait)
    _apply_to_each(context.obj, options, lock_wait, format_, files=diff, creates=True)


def _remove_orphans(chosen: Options, lock_wait: float) -> None:
    """Remove the stacks of groups that the settings no longer have.

    Raises:
        RefusedError: if agents are attached to one of them.
    """
    from clawker_fw.reconcile.advice import left_over_stacks
    from clawker_fw.reconcile.converge import take_down

    above = replace(chosen, group=None)
    groups = session.load(above).settings.groups
    engine = session.connect_engine(chosen)
    for stack in left_over_stacks(engine.listing(), above.project, groups):
        with log.about(stack), _step_output(chosen) as output, _run_context(output, lock_wait, []) as run_context:
            take_down(engine, stack, run_context, detach=False)


@app.command()
def drift(
    context: typer.Context,
    *,
    agents: AgentsOption = Agents.JUDGE,
    diff: DiffOption = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show every difference from the desired state, and its cause. Changes nothing; exit 0 when current, else 1.

    First comes what `run` would do and whether it cuts connections, then why, with the rules that would be added
    and removed. Fields follow by layer where they tell more and are few, all of them with `--diff`. An agent that
    bypasses the firewall makes the verdict `open`, even if Envoy and CoreDNS are current.

    Example: clawker-fw drift --json | jq -r .verdict
    """
    stacks.answer(context.obj, lambda chosen: _drift(chosen, agents, files=diff), format_)


def _drift(chosen: Options, counted: Agents, *, files: bool) -> Answer:
    from clawker_fw.model.differences import Verdict
    from clawker_fw.reconcile import pipeline

    _, comparison = reading(chosen)
    summary = pipeline.summary_of(comparison) if comparison.diff.findings else None
    agents = None if counted is Agents.IGNORE else comparison.agents
    verdict = comparison.diff.verdict if agents is None else comparison.verdict

    def document() -> object:
        from clawker_fw.report.documents.run import DriftDocument

        return DriftDocument.of(comparison, summary, verdict, agents)

    return Answer(
        document,
        lambda: _difference(
            comparison, summary, verdict, warnings=comparison.notices, agents=agents or (), files=files
        ),
        lambda: _verdict_line(comparison, verdict),
        ExitCode.CURRENT if verdict is Verdict.CURRENT else ExitCode.DRIFT,
    )


@app.command()
def reload(
    context: typer.Context,
    *,
    dry_run: DryRunOption = False,
    adopt: AdoptOption = False,
    without_secrets: WithoutSecretsOption = False,
    diff: DiffOption = False,
    lock_wait: LockOption = unparsed("0s"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Apply changed rules and settings to the running stack.

    Loads changed rules into the running Envoy and CoreDNS, and verifies them. A firewall container that differs
    otherwise is replaced, as by `run`. The stack must be up.

    Example: clawker-fw reload --dry-run
    """
    from clawker_fw.reconcile.steps import ConvergeOptions

    options = ConvergeOptions(adopt=adopt, secrets_needed=not without_secrets)
    if dry_run:
        stacks.answer(context.obj, lambda one: _planned(one, options, files=diff), format_)
    else:
        _apply_to_each(context.obj, options, lock_wait, format_, files=diff)


def _apply_to_each(
    chosen: Options,
    options: "ConvergeOptions",
    lock_wait: float,
    format_: Format,
    *,
    files: bool,
    creates: bool = False,
) -> None:
    """Apply the settings to the chosen stack, or to each stack of the file, and print the result.

    The others are created after the chosen one, which provides the images.
    """
    first_done = threading.Event()
    with stacks.stopped_together(chosen, _STOPPING) as stopping:

        def work(one: Options) -> Answer:
            order = Order(lock_wait, files=files, creates=creates, stopping=stopping)
            if one is not chosen:
                return apply_settings(one, replace(order, before_creating=first_done.wait), options)
            try:
                return apply_settings(one, order, options)
            finally:
                first_done.set()

        stacks.answer(chosen, work, format_)


@dataclass(frozen=True, slots=True)
class Order:
    """How to apply settings. `creates` also creates a stack that is not up, after `before_creating`.

    `silent` omits the steps and the warnings about rules. `stopping` tells whether to stop, if several stacks are
    stopped together.
    """

    lock_wait: float
    files: bool = False
    creates: bool = False
    silent: bool = False
    stopping: Callable[[], bool] | None = None
    before_creating: Callable[[], object] | None = None


def apply_settings(chosen: Options, order: Order, options: "ConvergeOptions | None" = None) -> Answer:
    """Apply the settings to the stack: report the differences, close them, and return the answer."""
    from clawker_fw.reconcile import converge
    from clawker_fw.reconcile.steps import ConvergeOptions

    engine, read, comparison = writing(chosen, reviews=not order.silent)
    if order.before_creating and comparison.observed.absent:
        order.before_creating()
        engine, read, comparison = writing(chosen, reviews=False)
    options = options or ConvergeOptions(secrets_needed=True)
    _, run_summary = _considered(comparison, options, creates=order.creates)
    converge.require_secrets(comparison, options)
    before = comparison
    performed: list[Progress] = []
    if run_summary is None:
        converge.tidy(engine, comparison, options)
    else:
        with (
            _step_output(chosen, files=order.files, silent=order.silent) as output,
            _run_context(output, order.lock_wait, performed, order.stopping) as run_context,
        ):
            output.difference(before.diff, run_summary)
            comparison = converge.converge(engine, read, options, run_context, comparison)

    def document() -> object:
        from clawker_fw.report.documents.run import RunDocument

        return RunDocument.of(before, run_summary, comparison, performed=performed)

    def text() -> "Iterator[Renderable]":
        from clawker_fw.report import text

        words = f"{comparison.blueprint.project}: {'applied and proven' if performed else 'nothing to do'}"
        warnings = comparison.first_notices if before.first_of_host else comparison.notices
        yield text.head(comparison.diff.verdict, words, warnings=warnings, agents=comparison.agents)

    return Answer(document, text, lambda: next(text()))


def summary_with(chosen: Options, loaded: "Loaded") -> list[str]:
    """Return the effect of `reload` with these settings as lines; none if it would change nothing.

    Raises:
        FirewallError: if `reload` would be refused, or the engine can't be reached.
    """
    from clawker_fw.reconcile.steps import ConvergeOptions
    from clawker_fw.report import summary

    _, comparison = reading(chosen, loaded)
    _, run_summary = _considered(comparison, ConvergeOptions(), creates=False)
    return summary.lines(run_summary)


@app.command()
def down(
    context: typer.Context,
    *,
    force: Annotated[bool, typer.Option("--force", help="Disconnect agents that are still attached.")] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also remove unused images of clawker-fw, and the names of the stack's former agents."
        ),
    ] = False,
    lock_wait: LockOption = unparsed("0s"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Remove the stack: Envoy, CoreDNS and both networks. Agents lose all egress.

    Images are kept for the next `run`, and listed; `--all` removes them.

    Example: clawker-fw down
    """
    chosen: Options = context.obj
    if chosen.overridden:
        raise RefusedError(
            "project-unclear",
            f"The settings file is for project {chosen.overridden}, and CLAWKER_FW_PROJECT for {chosen.project}.",
            hint="Nothing was removed. Name the stack with `--project`.",
        )
    with stacks.stopped_together(chosen, _STOPPING) as stopping:

        def work(one: Options) -> Answer:
            return _down(one, Order(lock_wait, stopping=stopping), force=force, everything=everything)

        stacks.answer(chosen, work, format_)


def _down(chosen: Options, order: Order, *, force: bool, everything: bool) -> Answer:
    from clawker_fw.agents import names
    from clawker_fw.reconcile.converge import take_down
    from clawker_fw.watch import last_good

    engine = session.connect_engine(chosen)
    performed: list[Progress] = []
    with (
        _step_output(chosen) as output,
        _run_context(output, order.lock_wait, performed, order.stopping) as run_context,
    ):
        images = take_down(engine, chosen.project, run_context, detach=force, everything=everything)
    if everything:
        names.forget(engine.facts().endpoint, chosen.project)
        last_good.path_of(chosen.project).unlink(missing_ok=True)
    outcome = f"{chosen.project} is down." if performed else f"{chosen.project} was not up."

    def document() -> object:
        from clawker_fw.report.documents.run import DownDocument, Left

        return DownDocument.of(chosen.project, performed, Left(images))

    def text() -> "Iterator[Renderable]":
        yield outcome
        yield from (f"Kept for the next run: image {name}" for name in images)
        if images:
            yield "`clawker-fw down --all` removes these as well."

    return Answer(document, text, lambda: outcome)


@contextmanager
def _step_output(
    chosen: Options, *, files: bool = False, silent: bool = False
) -> "Iterator[StepDisplay | StepRecords]":
    from clawker_fw.report import step_display, step_records, text

    if chosen.log_format is not log.LogFormat.TEXT and not silent:
        yield step_records.StepRecords()
        return
    console = text.console(stderr=True, quiet=silent)
    display = step_display.StepDisplay(console, files=files, stack=log.stack())
    with display.status or nullcontext():
        yield display


@contextmanager
def _run_context(
    output: "StepDisplay | StepRecords",
    lock_wait: float,
    performed: "list[Progress]",
    together: Callable[[], bool] | None = None,
) -> "Iterator[RunContext]":
    """Yield how to change a stack. `together` tells whether to stop, if several are stopped together."""
    from clawker_fw.reconcile.apply import RunContext

    def on_progress(progress: "Progress") -> None:
        output(progress)
        if progress.share >= 1:
            performed.append(progress)

    if together:
        yield RunContext(on_progress, together, lock_wait)
        return
    with session.stoppable(lambda: log.notice("stopping", _STOPPING), signal.SIGINT) as stopping:
        yield RunContext(on_progress, stopping, lock_wait)


def _considered(
    comparison: "Comparison", options: "ConvergeOptions", *, creates: bool
) -> "tuple[Plan, Summary | None]":
    """Return a permitted change's plan, and its meaning, or None if there is nothing to do."""
    from clawker_fw.reconcile import converge, pipeline

    if not creates:
        converge.require_up(comparison)
    converge.require_settings(comparison, options)
    session.warn_of_exposure(comparison)
    steps = comparison.plan(options)
    return steps, None if steps.empty else pipeline.summary_of(comparison, steps)


def _planned(chosen: Options, options: "ConvergeOptions", *, files: bool, creates: bool = False) -> Answer:
    _, comparison = reading(chosen)
    steps, run_summary = _considered(comparison, options, creates=creates)
    verdict = comparison.diff.verdict

    def document() -> object:
        from clawker_fw.report.documents.run import RunDocument

        return RunDocument.of(comparison, run_summary, comparison, planned=steps.steps)

    def text() -> "Iterator[Renderable]":
        yield from _difference(comparison, run_summary, verdict, warnings=comparison.notices, files=files)
        if not steps.empty:
            from clawker_fw.report.step_display import plan_report

            yield plan_report(steps)

    code = ExitCode.DRIFT if not steps.empty or comparison.diff.findings else ExitCode.CURRENT
    return Answer(document, text, lambda: _verdict_line(comparison, verdict), code)


def _verdict_line(comparison: "Comparison", verdict: "Verdict") -> "Renderable":
    from clawker_fw.report import text

    return text.head(verdict, comparison.desired.project, without_agents=comparison.diff.verdict)


def _difference(
    comparison: "Comparison",
    run_summary: "Summary | None",
    verdict: "Verdict",
    *,
    warnings: "Sequence[Advice]",
    agents: "Sequence[Agent]" = (),
    files: bool,
) -> "Iterator[Renderable]":
    from clawker_fw.reconcile.records import other_origins
    from clawker_fw.report import text

    made_from = other_origins(comparison.observed, comparison.blueprint.origin)
    yield text.head(
        verdict,
        comparison.desired.project,
        at_work=comparison.busy,
        warnings=warnings,
        agents=agents,
        without_agents=comparison.diff.verdict,
        made_from=made_from,
    )
    if run_summary is None:
        return
    yield text.drift_report(comparison.diff, run_summary, files=files)
    if comparison.failed_attempt:
        yield text.attempt_report(comparison.failed_attempt)
