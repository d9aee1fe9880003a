"""One set of settings, compared with many engines: what is the same for several of them is computed once."""

import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import FirewallError
from clawker_fw.model import EngineFacts
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired import Blueprint, prepare

_Value = TypeVar("_Value")


class Once:
    """Computes each value once, however many threads want it at the same time. An error is raised for each."""

    def __init__(self) -> None:
        """Know nothing."""
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._known: dict[Hashable, object] = {}

    def get(self, key: Hashable, compute: Callable[[], _Value]) -> _Value:
        """Return the value of a key."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._known:
                self._known[key] = compute()
            return self._known[key]  # type: ignore[return-value]  # it was computed for this key


class SharedSettings:
    """The settings of this command, and what they ask for. That depends on an engine's architecture.

    `blueprint` returns their blueprint for an engine. May be used from several threads.
    """

    def __init__(self, blueprint: Callable[[EngineFacts], Blueprint]) -> None:
        """Compute nothing yet."""
        self._blueprint = blueprint
        self._once = Once()

    def prepare(self, facts: EngineFacts) -> None:
        """Compute what engines like this one need, before any is asked. Errors come again when one is."""
        with suppress(FirewallError):
            self.blueprint(facts)

    def blueprint(self, facts: EngineFacts) -> Blueprint:
        """Return the blueprint for engines like this one: all that it says of the engine is what they share.

        Raises:
            FirewallError: when these settings can't be used with such an engine.
        """
        alike = EngineFacts("", "", facts.architecture)
        if facts.plain:  # an error may be about this one
            alike = replace(alike, plain=True, endpoint=facts.endpoint, named_by=facts.named_by)

        def prepared() -> Blueprint:
            made = self._blueprint(alike)
            prepare(made)
            return made

        return self._once.get(alike, prepared)

    def compare(self, engine: EngineReader) -> pipeline.Comparison:
        """Compare the stack on an engine with the settings.

        Raises:
            FirewallError: when that can't be done.
        """
        return pipeline.compare(engine, self.blueprint(engine.facts()))
