"""The commands that compare or change one stack: run, drift, reload and down."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session
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
from clawker_fw.cli.session import print_json, print_report, reading, writing
from clawker_fw.errors import ExitCode, RefusedError
from clawker_fw.report import log, terminal

if TYPE_CHECKING:
    from clawker_fw.agents.judge import Agent
    from clawker_fw.model.differences import Verdict
    from clawker_fw.reconcile.advice import Advice
    from clawker_fw.reconcile.apply import Progress, RunContext
    from clawker_fw.reconcile.pipeline import Comparison
    from clawker_fw.reconcile.steps import ConvergeOptions, Plan
    from clawker_fw.reconcile.summary import Summary
    from clawker_fw.report.documents.run import RunDocument
    from clawker_fw.report.step_display import StepDisplay
    from clawker_fw.report.step_records import StepRecords
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
    diff: DiffOption = False,
    lock_wait: LockOption = unparsed("0s"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Bring the stack up, or up to date with settings and release.

    The settings, the rules and this release describe what it has to be. Shows what will happen and why, closes the
    differences without dropping a request, and proves the result. A current stack is left unchanged.

    Example: clawker-fw run --dry-run
    """
    from clawker_fw.reconcile.steps import ConvergeOptions

    options = ConvergeOptions(replace_all=force_recreate, adopt=adopt, secrets_needed=not without_secrets)
    if dry_run:
        _answer_plan(context.obj, options, format_, files=diff, creates=True)
    else:
        apply_settings(context.obj, options, lock_wait=lock_wait, format_=format_, files=diff, creates=True)


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
    chosen: Options = context.obj
    from clawker_fw.model.differences import Verdict
    from clawker_fw.reconcile import pipeline

    _, seen = reading(chosen)
    said = pipeline.summary_of(seen) if seen.diff.findings else None
    judged = None if agents is Agents.IGNORE else seen.agents
    found = seen.diff.verdict if judged is None else seen.verdict
    if format_ is Format.JSON:
        from clawker_fw.report.documents.run import DriftDocument

        print_json(DriftDocument.of(seen, said, found, judged))
    else:
        _print_difference(seen, said, found, warnings=seen.notices, agents=judged or (), files=diff)
    if found is not Verdict.CURRENT:
        raise typer.Exit(ExitCode.DRIFT)


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
        _answer_plan(context.obj, options, format_, files=diff)
    else:
        apply_settings(context.obj, options, lock_wait=lock_wait, format_=format_, files=diff)


def apply_settings(
    chosen: Options,
    wanted: "ConvergeOptions | None" = None,
    *,
    lock_wait: float,
    format_: Format,
    files: bool = False,
    creates: bool = False,
    silent: bool = False,
    answer: "Callable[[RunDocument], None] | None" = print_json,
) -> None:
    """Apply the settings to the stack: report the differences, close them, and print the result.

    `creates` also creates a stack that is not up. `silent` omits the steps and the warnings about rules. `answer`
    prints the answer in JSON; without it, the slow comparison of files is left out.
    """
    from clawker_fw.reconcile import converge
    from clawker_fw.reconcile.steps import ConvergeOptions

    engine, read, seen = writing(chosen, reviews=not silent)
    wanted = wanted or ConvergeOptions(secrets_needed=True)
    _, said = _considered(seen, wanted, creates=creates)
    converge.require_secrets(seen, wanted)
    before = seen
    performed: list[Progress] = []
    if said is None:
        converge.tidy(engine, seen, wanted)
    else:
        with (
            _step_output(chosen, files=files, silent=silent) as output,
            _run_context(output, lock_wait, performed) as run_context,
        ):
            output.difference(before.diff, said)
            seen = converge.converge(engine, read, wanted, run_context, seen)
    if answer is None:
        return
    if format_ is Format.JSON:
        from clawker_fw.report.documents.run import RunDocument

        answer(RunDocument.of(before, said, seen, performed=performed))
    else:
        words = f"{seen.blueprint.project}: {'applied and proven' if performed else 'nothing to do'}"
        warnings = seen.first_notices if before.first_of_host else seen.notices
        from clawker_fw.report import text

        head = text.head(seen.diff.verdict, words, warnings=warnings, agents=seen.agents)
        print_report(head)


def summary_with(chosen: Options, loaded: "Loaded") -> list[str]:
    """Return the effect of `reload` with these settings as lines; none if it would change nothing.

    Raises:
        FirewallError: if `reload` would be refused, or the engine can't be reached.
    """
    from clawker_fw.reconcile.steps import ConvergeOptions
    from clawker_fw.report import summary

    _, seen = reading(chosen, loaded)
    _, said = _considered(seen, ConvergeOptions(), creates=False)
    return summary.lines(said)


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
    from clawker_fw.agents import names
    from clawker_fw.reconcile.converge import take_down
    from clawker_fw.watch import last_good

    chosen: Options = context.obj
    if chosen.overridden:
        raise RefusedError(
            "project-unclear",
            f"The settings file is for project {chosen.overridden}, and CLAWKER_FW_PROJECT for {chosen.project}.",
            hint="Nothing was removed. Name the stack with `--project`.",
        )
    engine = session.connect_engine(chosen)
    performed: list[Progress] = []
    with (
        _step_output(chosen) as output,
        _run_context(output, lock_wait, performed) as run_context,
    ):
        images = take_down(engine, chosen.project, run_context, detach=force, everything=everything)
    if everything:
        names.forget(engine.facts().endpoint, chosen.project)
        last_good.path_of(chosen.project).unlink(missing_ok=True)
    if format_ is Format.JSON:
        from clawker_fw.report.documents.run import DownDocument, Left

        print_json(DownDocument.of(chosen.project, performed, Left(images)))
    else:
        terminal.answer(f"{chosen.project} is down." if performed else f"{chosen.project} was not up.")
        for name in images:
            terminal.answer(f"Kept for the next run: image {name}")
        if images:
            terminal.answer("`clawker-fw down --all` removes these as well.")


@contextmanager
def _step_output(
    chosen: Options, *, files: bool = False, silent: bool = False
) -> "Iterator[StepDisplay | StepRecords]":
    from clawker_fw.report import step_display, step_records, text

    if chosen.log_format is not log.LogFormat.TEXT and not silent:
        yield step_records.StepRecords()
        return
    display = step_display.StepDisplay(text.console(stderr=True, quiet=silent), files=files)
    with display.status or nullcontext():
        yield display


@contextmanager
def _run_context(
    output: "StepDisplay | StepRecords", lock_wait: float, performed: "list[Progress]"
) -> "Iterator[RunContext]":
    from clawker_fw.reconcile.apply import RunContext

    def on_progress(progress: "Progress") -> None:
        output(progress)
        if progress.share >= 1:
            performed.append(progress)

    with session.stoppable(lambda: log.notice("stopping", _STOPPING), signal.SIGINT) as stopping:
        yield RunContext(on_progress, stopping, lock_wait)


def _considered(seen: "Comparison", wanted: "ConvergeOptions", *, creates: bool) -> "tuple[Plan, Summary | None]":
    """Return a permitted change's plan, and its meaning, or None if there is nothing to do."""
    from clawker_fw.reconcile import converge, pipeline

    if not creates:
        converge.require_up(seen)
    converge.require_settings(seen, wanted)
    session.warn_of_exposure(seen)
    steps = seen.plan(wanted)
    return steps, None if steps.empty else pipeline.summary_of(seen, steps)


def _answer_plan(
    chosen: Options,
    wanted: "ConvergeOptions",
    format_: Format,
    *,
    files: bool,
    creates: bool = False,
) -> None:
    _, seen = reading(chosen)
    steps, said = _considered(seen, wanted, creates=creates)
    if format_ is Format.JSON:
        from clawker_fw.report.documents.run import RunDocument

        print_json(RunDocument.of(seen, said, seen, planned=steps.steps))
    else:
        _print_difference(seen, said, seen.diff.verdict, warnings=seen.notices, files=files)
        if not steps.empty:
            from clawker_fw.report.step_display import plan_report

            print_report(plan_report(steps))
    if not steps.empty or seen.diff.findings:
        raise typer.Exit(ExitCode.DRIFT)


def _print_difference(
    seen: "Comparison",
    said: "Summary | None",
    found: "Verdict",
    *,
    warnings: "Sequence[Advice]",
    agents: "Sequence[Agent]" = (),
    files: bool,
) -> None:
    from clawker_fw.reconcile.records import other_origins
    from clawker_fw.report import text

    made_from = other_origins(seen.observed, seen.blueprint.origin)
    head = text.head(
        found,
        seen.desired.project,
        at_work=seen.busy,
        warnings=warnings,
        agents=agents,
        without_agents=seen.diff.verdict,
        made_from=made_from,
    )
    print_report(head)
    if said is None:
        return
    print_report(text.drift_report(seen.diff, said, files=files))
    if seen.failed_attempt:
        print_report(text.attempt_report(seen.failed_attempt))
