"""The in-memory engine, and time that does not pass."""

from itertools import count
from types import SimpleNamespace

import pytest

from clawker_fw.engine.memory import MemoryEngine


@pytest.fixture
def memory() -> MemoryEngine:
    """An empty engine."""
    return MemoryEngine()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the waits for real programs pass at once; a hundred questions take a second of this clock."""
    clock = count()  # several threads may ask at once
    timeless = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(clock) / 100)
    for module in ("apply", "observe", "lock"):
        monkeypatch.setattr(f"clawker_fw.reconcile.{module}.time", timeless)
