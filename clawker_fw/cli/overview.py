"""All stacks of an engine, for `status --all`."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw.cli import session
from clawker_fw.cli.parameters import Format, Options
from clawker_fw.cli.session import print_json, print_report
from clawker_fw.errors import FirewallError, SettingsError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.engine.port import EngineReader
    from clawker_fw.report.overview import Stack
    from clawker_fw.stack.release import Release


def list_stacks(chosen: Options, format_: Format) -> None:
    """Print all stacks of the engine, each compared with the settings file that it was made from."""
    from clawker_fw.reconcile.observe import projects
    from clawker_fw.report import overview
    from clawker_fw.stack.release import Release

    engine = session.connect_reader(chosen)
    release = Release.installed()
    found = [_stack(engine, chosen, release, project) for project in projects(engine)]
    if format_ is Format.JSON:
        print_json(overview.StacksAnswer.of(found, engine.facts()))
    elif found:
        print_report(overview.report(found))
    else:
        terminal.tell(chosen.named("There is no stack on this engine. Start one with `clawker-fw run`."))


def _stack(engine: "EngineReader", chosen: Options, release: "Release", project: str) -> "Stack":
    """Return one stack: compared with its own settings if possible, else as far as it can be known."""
    from clawker_fw.reconcile import pipeline, records
    from clawker_fw.reconcile.observe import observe
    from clawker_fw.report import overview, status

    try:
        observed = observe(engine, project, ())
    except FirewallError as error:
        return overview.unreadable(project, error)
    made_from = next(iter(records.recorded_origins(observed)), None)
    inside = engine.facts().inside
    if made_from is None or made_from.host != records.this_host(inside) or not made_from.path:
        elsewhere = SettingsError("settings-elsewhere", "Its settings are not a file on this machine.")
        return overview.Stack.of(status.without_settings(observed, project, elsewhere), None)
    here = (inside.in_here(made_from.path) if inside else None) or made_from.path
    own = replace(chosen, config=Path(here), named_project=project)
    try:
        seen = pipeline.compare(engine, session.blueprint(own, session.load(own), release, engine.facts()))
        return overview.Stack.of(status.of_comparison(seen, time.time()), made_from.path)
    except FirewallError as error:  # whatever is wrong with one stack costs its own line
        return overview.Stack.of(status.without_settings(observed, project, error), made_from.path)
