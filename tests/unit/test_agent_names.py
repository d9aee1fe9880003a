"""Whose a refusal is, while somebody sets a clock."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from clawker_fw.agents import names
from clawker_fw.agents.names import AgentNames, Attached

ADDRESS = "10.213.0.9"
HOUR = 3600.0


@pytest.fixture(autouse=True)
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered before a test, nor after it."""
    monkeypatch.setattr(names, "remembered_at", lambda: tmp_path / "agents.json")


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_a_clock_that_is_put_back_blames_nobody() -> None:
    """Who was seen while the clock was an hour ahead is not who has the address later."""
    began = 1_000_000.0
    known = AgentNames("engine", "clawker")
    known.look({ADDRESS: Attached("first", began)}, began + HOUR)
    known.look({ADDRESS: Attached("second", began + 60)}, began + 120)
    assert known.of(ADDRESS, _at(began + 180)) == "second"
    assert known.of(ADDRESS, _at(began + 30)) == "first"  # the control: it is known from when it was there
    assert AgentNames("engine", "clawker").of(ADDRESS, _at(began + 180)) == ""
