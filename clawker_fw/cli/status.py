"""The command that shows the state of a stack, or of all stacks."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.background import in_background
from clawker_fw.cli import session, stacks
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json, print_report, reading
from clawker_fw.cli.stacks import Answer
from clawker_fw.errors import EngineError, FirewallError, RefusedError, SettingsError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.denials.refusal import Counted
    from clawker_fw.engine.port import EngineReader
    from clawker_fw.reconcile.advice import Advice
    from clawker_fw.reconcile.pipeline import Comparison
    from clawker_fw.report.status import Stack, StatusDocument
    from clawker_fw.report.text import Renderable
    from clawker_fw.stack.release import Release

_RECENT_SECONDS = 3600.0


@app.command()
def status(
    context: typer.Context,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="List all stacks on the Docker host instead, each with its verdict.")
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show what runs, which rules are live, and who the agents are.

    The last line attaches an agent.

    Each agent is `fenced`, `weak`, or `open` if it has a way around the firewall. If settings or secrets can't
    be used, the answer is what can be known without them, and the exit code is 3 or 6.

    With `--all`, each stack is compared with the settings file that it was made from. If that file is on another
    machine or can't be read, the verdict is `unknown`. Settings in the environment are those of this shell.

    Example: clawker-fw status --json | jq -r .agent.dns
    """
    chosen: Options = context.obj
    if every:
        _list_stacks(chosen, format_)
        return
    stacks.answer(chosen, _answer, format_)


def _answer(chosen: Options) -> Answer:
    from clawker_fw.model.differences import Verdict

    status, unread = _status(chosen)

    def text() -> "Iterator[Renderable]":
        from clawker_fw.report.status import status_report

        yield status_report(status, time.time())

    def line() -> "Renderable":
        from clawker_fw.report.text import head

        return head(status.verdict, status.project)

    differs = status.verdict is not Verdict.CURRENT
    return Answer(lambda: status, text, line, differs=differs, error=unread)


def _status(chosen: Options) -> "tuple[StatusDocument, FirewallError | None]":
    """Return the known status of the stack, and the error that prevented a comparison."""
    from clawker_fw.report.status import StatusDocument

    engine = session.connect_engine(chosen)
    asked = in_background(_refusals, engine, chosen.project)
    result: Comparison | FirewallError
    try:
        _, result = reading(chosen, engine=engine)
        observed = result.observed
    except (SettingsError, RefusedError) as error:  # of settings, or of the secrets that they need
        from clawker_fw.reconcile.observe import observe

        result, observed = error, observe(engine, chosen.project)
    refusals, unreadable = asked.result()
    engine.close()
    status = StatusDocument.of(
        observed, chosen.project, time.time(), result, refusals=refusals, further=unreadable
    )
    return status, result if isinstance(result, FirewallError) else None


def _refusals(engine: "EngineReader", project: str) -> "tuple[Sequence[tuple[Counted, str]], Sequence[Advice]]":
    """Return the refusals of the last hour with their agents, and a warning if they are unreadable."""
    from clawker_fw.denials import reading
    from clawker_fw.reconcile.advice import Advice
    from clawker_fw.stack.container import trial_name

    try:
        log_sources = reading.sources(engine, project)
        begin = engine.clock() - _RECENT_SECONDS  # the records have the engine's times
        counted = reading.Reading(engine, log_sources, begin).refusals().counted
        trial = trial_name(project)
        named = [(refusal, log_sources.name_of(refusal.refusal.agent, refusal.last)) for refusal in counted]
        return [(refusal, name) for refusal, name in named if name != trial], ()
    except RefusedError:  # there is no sibling
        return (), ()
    except EngineError as error:
        words = f"What was refused can't be read: {error.in_one_line}"
        return (), (Advice("refusals-unreadable", words),)


def _list_stacks(chosen: Options, format_: Format) -> None:
    from clawker_fw.reconcile.observe import projects
    from clawker_fw.report.status import StacksAnswer, stacks_report
    from clawker_fw.stack.release import Release

    engine = session.connect_reader(chosen)
    release = Release.installed()
    stacks = [_stack(engine, chosen, release, project) for project in projects(engine)]
    if format_ is Format.JSON:
        print_json(StacksAnswer.of(stacks, engine.facts()))
    elif stacks:
        print_report(stacks_report(stacks))
    else:
        terminal.answer("There is no stack on this engine. Start one with `clawker-fw run`.")


def _stack(engine: "EngineReader", chosen: Options, release: "Release", project: str) -> "Stack":
    """Return one stack: compared with its settings if they are readable, else from the engine alone."""
    from clawker_fw.reconcile import inputs, pipeline, records
    from clawker_fw.reconcile.observe import observe
    from clawker_fw.report.status import Stack, StatusDocument, unreadable

    try:
        observed = observe(engine, project)
    except FirewallError as error:
        return unreadable(project, error)
    made_from = next(iter(records.recorded_origins(observed)), None)
    inside = engine.facts().inside
    if made_from is None or made_from.host != records.this_host(inside) or not made_from.path:
        elsewhere = SettingsError("settings-elsewhere", "Its settings are not a file on this machine.")
        return Stack.of(StatusDocument.of(observed, project, time.time(), elsewhere), None)
    here = (inside.in_here(made_from.path) if inside else None) or made_from.path
    base = project.removesuffix(f"-{made_from.group}") if made_from.group else project
    own = replace(chosen, config=Path(here), named_project=base, group=made_from.group)
    try:
        comparison = pipeline.compare(engine, inputs.blueprint(own, session.load(own), release, engine.facts()))
        status = StatusDocument.of(comparison.observed, project, time.time(), comparison)
    except FirewallError as error:  # whatever is wrong with one stack costs its own line
        status = StatusDocument.of(observed, project, time.time(), error)
    return Stack.of(status, made_from.path)
