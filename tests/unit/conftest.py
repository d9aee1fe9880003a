"""The in-memory engine, and time that does not pass."""

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
    clock = iter(number / 100 for number in range(10**9))
    timeless = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(clock))
    for module in ("apply", "observe", "lock"):
        monkeypatch.setattr(f"clawker_fw.reconcile.{module}.time", timeless)
