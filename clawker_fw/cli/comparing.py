"""The comparison that the options choose, as every command about a stack needs it, and its JSON answers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clawker_fw.background import in_background
from clawker_fw.cli import given
from clawker_fw.cli.parameters import Options
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.engine.port import EngineReader, EngineWriter
    from clawker_fw.reconcile.desired import Blueprint
    from clawker_fw.reconcile.observe import Observation
    from clawker_fw.reconcile.pipeline import Comparison


@contextmanager
def reading(chosen: Options) -> "Iterator[tuple[EngineReader, Comparison]]":
    """Compare the stack with its settings, for a command that changes nothing: it gets no writer."""
    with _comparing(chosen, writes=False) as (engine, _, seen):
        yield engine, seen


@contextmanager
def attaching(chosen: Options) -> "Iterator[tuple[EngineWriter, Comparison]]":
    """Compare the stack with its settings, for a command that changes nothing of it: it makes what agents need."""
    with _comparing(chosen, writes=False) as (engine, _, seen):
        yield engine, seen


@contextmanager
def writing(
    chosen: Options, *, reviews: bool = True
) -> "Iterator[tuple[EngineWriter, Callable[[], Blueprint], Comparison]]":
    """Compare the stack with its settings: yield the engine, a function that reads the settings again, the result.

    The settings are read again under the lock, because they may change while a run waits for it. `reviews` warns
    of rules that decide nothing.
    """
    with _comparing(chosen, writes=True, reviews=reviews) as found:
        yield found


@contextmanager
def _comparing(
    chosen: Options, *, writes: bool, reviews: bool = True
) -> "Iterator[tuple[EngineWriter, Callable[[], Blueprint], Comparison]]":
    """Compare the stack with its settings.

    The settings are read, and the rest of the program is imported, while the engine answers. A mistake in the
    settings is reported before any error of the engine.
    """
    from clawker_fw.cli import connection
    from clawker_fw.reconcile.observe import Observation
    from clawker_fw.stack.container import HELPER
    from clawker_fw.stack.release import Release

    release = Release.installed()

    def start_observation() -> "tuple[EngineWriter, Observation]":
        engine = connection.connect_engine(chosen)
        known = {HELPER: release.helper(engine.facts().architecture)}
        return engine, Observation(engine, chosen.project, known)

    observing = in_background(start_observation)
    loaded = given.load(chosen)
    given.warn_of_project(chosen, loaded)
    from clawker_fw.reconcile import pipeline
    from clawker_fw.rules.review import review

    if reviews:
        given.warn_of_rules(review(loaded.rules, time.time()))
    engine, observation = observing.result()

    def read() -> "Blueprint":
        return given.blueprint(chosen, given.load(chosen), release, engine.facts(), keeps=writes)

    yield engine, read, pipeline.compare(engine, read(), observation)


def print_json(document: object, *, indent: int | None = 2) -> None:
    """Print an answer in JSON, or without an indent a line of one."""
    from clawker_fw.report import documents

    terminal.answer(documents.text(document, indent=indent))
