"""An in-memory engine, a watcher over one, and a clock that does not wait."""

from itertools import count
from types import SimpleNamespace

import pytest

from clawker_fw.reconcile.desired_state import Blueprint
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.watched import Watched


@pytest.fixture
def memory() -> MemoryEngine:
    """An engine without containers, networks or images."""
    return MemoryEngine()


@pytest.fixture
def up(memory: MemoryEngine) -> Blueprint:
    """A running stack with one rule on that engine."""
    wanted = stacks.blueprint(memory.facts(), "a.test")
    stacks.converged(memory, wanted)
    return wanted


@pytest.fixture
def watched() -> Watched:
    """A running stack and a watcher for it."""
    return Watched()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the waits for real programs: on this clock, a second passes every twenty readings."""
    clock = count()  # several threads may read it at once
    timeless = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(clock) / 20)
    for module in ("apply", "observe", "lock", "publishing"):
        monkeypatch.setattr(f"clawker_fw.reconcile.{module}.time", timeless)
