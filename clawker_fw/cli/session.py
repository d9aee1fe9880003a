"""The settings and the engine that the options choose, and their comparison."""

import logging
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from clawker_fw import interrupts
from clawker_fw.cli.parameters import Options
from clawker_fw.errors import ExitCode, FirewallError, SettingsError
from clawker_fw.report import log, terminal
from clawker_fw.settings.files import may_exist
from clawker_fw.settings.find import DEFAULT_PROJECT

if TYPE_CHECKING:
    from concurrent.futures import Future

    from clawker_fw.diagnose.explanation import Explainer
    from clawker_fw.engine.locate import EngineLocation
    from clawker_fw.engine.port import EngineReader, EngineWriter
    from clawker_fw.reconcile.desired_state import Blueprint
    from clawker_fw.reconcile.pipeline import Comparison
    from clawker_fw.report.text import Renderable
    from clawker_fw.rules.review import Remark
    from clawker_fw.settings.loaded import Loaded

_MOST_WARNINGS = 10
_CONNECTION: "ContextVar[Future[EngineWriter] | None]" = ContextVar("connection", default=None)
"""The connection that several stacks share."""

_HINT_SECONDS = 2.0
"""How long an engine may take to name the settings."""


def reading(
    chosen: Options, loaded: "Loaded | None" = None, engine: "EngineWriter | None" = None
) -> "tuple[EngineReader, Comparison]":
    """Compare the stack with its settings, for a command that changes nothing: it gets no writer.

    `loaded` are settings that were read and reviewed before. `engine` is an existing connection.
    """
    engine, _, comparison = _comparing(chosen, loaded, engine, writes=False, reviews=loaded is None)
    return engine, comparison


def attaching(chosen: Options) -> "tuple[EngineWriter, Comparison]":
    """Compare the stack with its settings, for a command that only creates what agents need."""
    engine, _, comparison = _comparing(chosen, writes=False)
    return engine, comparison


def writing(
    chosen: Options, *, reviews: bool = True
) -> "tuple[EngineWriter, Callable[[], Blueprint], Comparison]":
    """Compare the stack with its settings, for a command that changes it.

    Returns the engine, a function that reads the settings again (they may change while a run waits for the lock),
    and the comparison. `reviews` warns of rules without effect.
    """
    return _comparing(chosen, writes=True, reviews=reviews)


def _comparing(
    chosen: Options,
    loaded: "Loaded | None" = None,
    engine: "EngineWriter | None" = None,
    *,
    writes: bool,
    reviews: bool = True,
) -> "tuple[EngineWriter, Callable[[], Blueprint], Comparison]":
    """Compare the stack with its settings. Errors in the settings come before the engine's."""
    from clawker_fw.reconcile import inputs, pipeline
    from clawker_fw.rules.review import review
    from clawker_fw.stack.release import Release

    loaded = loaded or load(chosen)
    if reviews:
        warn_of_rules(review(loaded.rules, time.time()))
    engine, release = engine or connect_engine(chosen), Release.installed()

    def drawn(settings: "Loaded | None" = None) -> "Blueprint":
        return inputs.blueprint(chosen, settings or load(chosen), release, engine.facts(), keeps=writes)

    return engine, drawn, pipeline.compare(engine, drawn(loaded))


def connect_engine(chosen: Options) -> "EngineWriter":
    """Connect to the chosen engine, to change something, or return the connection that several stacks share."""
    from clawker_fw.engine.docker import connect

    shared = _CONNECTION.get()
    return shared.result() if shared else connect(chosen.host, chosen.context, os.environ)


@contextmanager
def one_connection(chosen: Options) -> Iterator[None]:
    """Let the work on several stacks share a connection, which reads the form of each container only once."""
    from clawker_fw.background import in_background

    before = _CONNECTION.set(in_background(connect_engine, chosen))
    try:
        yield
    finally:
        _CONNECTION.reset(before)


def connect_reader(chosen: Options) -> "EngineReader":
    """Connect to the chosen engine, only to read."""
    return connect_engine(chosen)


def connect_place(place: "EngineLocation", seconds: float) -> "EngineReader":
    """Connect to one of many hosts' engines, only to read."""
    from clawker_fw.engine.docker import connect_to

    return connect_to(place, seconds)


def print_report(report: "Renderable") -> None:
    """Print an answer for people."""
    from clawker_fw.report import text

    text.console().print(report)


def print_table(headings: "Sequence[str]", rows: "Sequence[Sequence[str]]") -> None:
    """Print a table for people."""
    from clawker_fw.report import text

    print_report(text.Rows(headings, rows))


def print_error(error: FirewallError) -> None:
    """Print an error on standard error, for people or as a record."""
    if log.for_programs():
        log.error(error, debug=log.debugging())
    else:
        from clawker_fw.report import text

        text.print_error(error, text.console(stderr=True), debug=log.debugging())


def print_json(document: object) -> None:
    """Print an answer in JSON."""
    from clawker_fw.report import documents

    terminal.answer(documents.text(document), verbatim=True)


def load(chosen: Options) -> "Loaded":
    """Read the settings of the chosen project.

    Raises:
        SettingsError: if they are invalid, or the file now names another project.
    """
    from clawker_fw.settings.validation import load_settings

    loaded = load_settings(chosen.config, os.environ, chosen.group)
    meant = loaded.settings.project
    if not chosen.named_project and (meant or DEFAULT_PROJECT) != chosen.base_project:
        raise SettingsError(
            "project-changed",
            f"{loaded.source} is for project {meant or DEFAULT_PROJECT}, this command for {chosen.base_project}.",
            hint="Write `project: NAME` on a line of its own, without indentation. "
            "After a change of the project, restart `clawker-fw watch`.",
        )
    return loaded


def hint_of_the_stack(chosen: Options) -> str:
    """Return a hint with the running stack's settings file, or nothing if the engine does not answer soon."""
    from clawker_fw.background import in_background

    try:
        path = in_background(_settings_of_the_stack, chosen).result(_HINT_SECONDS)
    except (FirewallError, TimeoutError):
        return ""
    return path and (
        f"The stack {chosen.project} was made from {path}: add `--config {shlex.quote(path)}`, or use its folder."
    )


def _settings_of_the_stack(chosen: Options) -> str:
    """Return the path of the running stack's settings file on this machine, or nothing."""
    from clawker_fw.reconcile.records import this_host
    from clawker_fw.stack.container import ORIGIN, recorded_origin
    from clawker_fw.stack.labels import sibling_of

    reader = connect_reader(chosen)
    inside = reader.facts().inside
    for container in reader.listing():
        file = reader.file(container.id, ORIGIN) if sibling_of(container, chosen.project) else None
        origin = recorded_origin({ORIGIN: file}) if file else None
        if origin and origin.path and origin.host == this_host(inside):
            return (inside.in_here(origin.path) if inside else None) or origin.path
    return ""


def explainer(chosen: Options, loaded: "Loaded", now: float, *, observing: bool = False) -> "Explainer":
    """Return an explainer of the rules, whose commands name this stack. `now` is in seconds since 1970.

    It explains what passes only for now if it is to know of `observing`.
    """
    from dataclasses import replace

    from clawker_fw.diagnose.explanation import Explainer
    from clawker_fw.settings.edit import rules_file

    variable, editable = loaded.rules_variable, None
    if not variable:
        try:
            editable = rules_file.editable(chosen.config, os.environ, chosen.group)
        except SettingsError:  # there is no file
            variable = "the settings"
    rules = loaded.rules if observing else replace(loaded.rules, observing=None)
    return Explainer(rules, now, variable, loaded.promises, editable=editable)


def warn_of_rules(remarks: "Sequence[Remark]") -> None:
    """Warn of the first ten rules without effect, and of the number of the others."""
    for remark in remarks[:_MOST_WARNINGS]:
        warn(remark.code.replace("-", "_"), message=f"{remark}.")
    if (more := len(remarks) - _MOST_WARNINGS) > 0:
        warn("rules_more", message=f"{more:,} more rules decide nothing; `clawker-fw rules check` lists all.")


def check_secrets(chosen: Options, loaded: "Loaded") -> "tuple[Remark, ...]":
    """Require that secrets may go where rules send them. Return a remark on each rule that can't be checked.

    Raises:
        RefusedError: if the user's file forbids it.
        SettingsError: if the file can't be read.
    """
    from clawker_fw.reconcile import inputs
    from clawker_fw.rules.review import Remark, RemarkCode
    from clawker_fw.rules.ruleset import injecting
    from clawker_fw.settings.secrets.declared import default_path

    path = chosen.secrets or default_path()
    if chosen.secrets or may_exist(path):
        inputs.secrets(chosen, loaded)
        return ()
    reason = f"needs a secret, and {path} is not here to say where it may go"
    return tuple(Remark(RemarkCode.SECRET_UNCHECKED, rule, reason) for rule, _ in injecting(loaded.rules.rules))


@contextmanager
def stoppable(then: Callable[[], object], *signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Let signals stop the work after its current step. Yields a function that tells whether one has come.

    `then` is called when one comes. A second Ctrl-C ends the program.
    """
    asked = threading.Event()

    def stop(number: int, _: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            terminal.show_cursor()
            os._exit(ExitCode.INTERRUPTED)
        asked.set()
        then()

    with interrupts.handled(stop, *signals):
        yield asked.is_set


def warn_of_exposure(comparison: "Comparison") -> None:
    """Warn if an agent could change the settings that are about to be applied."""
    from clawker_fw.agents.exposure import HINT, exposures

    for exposure in exposures(comparison.observed, comparison.blueprint.files):
        warn(
            "settings_open",
            message=f"{exposure}.",
            container=exposure.container,
            mount=exposure.source,
            target=exposure.target,
            file=exposure.file,
            hint=HINT,
        )


def warn(event: str, **fields: str) -> None:
    """Warn. The fields have a `message` for people."""
    logging.getLogger("clawker_fw").warning(event, extra={"fields": fields})
