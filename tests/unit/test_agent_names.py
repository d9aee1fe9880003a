"""Attributing refusals to agents when the clock is changed."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from clawker_fw.agents import names
from clawker_fw.agents.names import AgentNames, Attached

ADDRESS = "10.213.0.9"
HOUR = 3600.0


@pytest.fixture(autouse=True)
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start and end each test without remembered names."""
    monkeypatch.setattr(names, "remembered_at", lambda: tmp_path / "agents.json")


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_a_clock_that_is_put_back_blames_nobody() -> None:
    """An agent seen while the clock was an hour ahead is not blamed for a later holder of its address."""
    began = 1_000_000.0
    known = AgentNames("engine", "clawker")
    known.look({ADDRESS: Attached("first", began)}, began + HOUR)
    known.look({ADDRESS: Attached("second", began + 60)}, began + 120)
    assert known.of(ADDRESS, _at(began + 180)) == "second"
    assert known.of(ADDRESS, _at(began + 30)) == "first"  # the control: a name counts from its agent's start
    assert AgentNames("engine", "clawker").of(ADDRESS, _at(began + 180)) == ""


def test_only_one_stack_is_forgotten() -> None:
    """Forgetting one stack keeps the names of the others; the file is removed with the last stack."""
    began = 1_000_000.0
    for project in ("one", "other"):
        AgentNames("engine", project).look({ADDRESS: Attached(project, began)}, began + HOUR)
    names.forget("engine", "one")
    assert AgentNames("engine", "one").of(ADDRESS, _at(began + 60)) == ""
    assert AgentNames("engine", "other").of(ADDRESS, _at(began + 60)) == "other"
    names.forget("engine", "other")
    assert not names.remembered_at().exists()


def test_a_service_and_a_shell_remember_in_one_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A systemd unit sets only the state folder, so the cache folder does not decide where names are stored."""
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shell = names.remembered_at()
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/clawker-fw")
    assert names.remembered_at() == shell == tmp_path / "state" / "clawker-fw" / "agents.json"
