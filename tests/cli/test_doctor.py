"""`doctor`: each check, what it sees, and what it says to do."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.errors import EngineError
from clawker_fw.model import Trial, TrialStep
from tests.cli.conftest import Command, Outcome
from tests.cli.test_status import join


def results(outcome: Outcome) -> dict[str, str]:
    """Return the result of each check."""
    return {each["name"]: each["health"] for each in outcome.valid("doctor")["checks"]}


@pytest.fixture
def well(command: Command, memory: MemoryEngine, settings_file: Path) -> Callable[[], Outcome]:
    """A stack that is up, and whose names resolve."""
    settings_file.chmod(0o644)
    command("run")
    for container in ("clawker-envoy", "clawker-coredns"):
        memory.inside(container).zone = {"a.test": ("192.0.2.1",), "h.test": ("192.0.2.2",)}
    return lambda: command("doctor", "--format", "json")


def test_nothing_is_wrong(well: Callable[[], Outcome], command: Command) -> None:
    """Every check is well, and the exit code is 0."""
    outcome = well()
    assert results(outcome) == dict.fromkeys(
        [
            *("settings", "permissions", "engine", "clocks", "stack", "agents", "upstream-dns", "refusal"),
            "way-out",
        ],
        "ok",
    )
    assert (outcome.code, outcome.json["healthy"]) == (0, True)
    assert "ok       clocks: " in command("doctor").out
    assert "clawker-fw.yaml has 2 rules.\n" in command("doctor").out


def test_one_is_counted_as_one(command: Command, memory: MemoryEngine, settings_file: Path) -> None:
    """A single rule and a single agent are no plural."""
    settings_file.write_text("rules:\n  - dst: a.test\n")
    command("run")
    join(memory, "fine")
    out = command("doctor").out
    assert "clawker-fw.yaml has 1 rule.\n" in out
    assert "The agent is fenced.\n" in out


def test_each_thing_that_can_be_wrong(
    well: Callable[[], Outcome], memory: MemoryEngine, settings_file: Path, command: Command
) -> None:
    """A failed check names what to do, and the exit code is 1; a warning leaves it."""
    settings_file.chmod(0o666)
    memory.clock_ahead = 90.0
    join(memory, "raw", capabilities_dropped=())
    warned = well()
    assert warned.code == 0
    assert {name for name, health in results(warned).items() if health == "warning"} == {
        "permissions",
        "clocks",
        "agents",
    }
    assert "90 s ahead" in command("doctor").out
    join(memory, "loose", privileged=True)
    memory.inside("clawker-envoy").zone = {}
    settings_file.write_text("rules:\n  - dst: a.test\n")
    failed = well()
    assert failed.code == 1
    assert {name for name, health in results(failed).items() if health == "failed"} == {
        "stack",
        "agents",
        "upstream-dns",
    }
    assert all(each["advice"] for each in failed.json["checks"] if each["health"] == "failed")


def test_one_name_that_does_not_resolve_is_a_warning(well: Callable[[], Outcome], memory: MemoryEngine) -> None:
    """Then the name servers answer, and the name may be mistyped."""
    memory.inside("clawker-envoy").zone = {"a.test": ("192.0.2.1",)}
    assert results(well())["upstream-dns"] == "warning"


def test_an_answer_of_our_own_is_no_way_out(well: Callable[[], Outcome], memory: MemoryEngine) -> None:
    """Envoy answers requests that lead nowhere itself: what is on record has not reached its host."""
    source = "10.213.0.20:40000"
    step = TrialStep("request", source, 0.1, ok=True, status=503, outcome="HTTP 503")
    memory.inside("clawker-coredns").tried = Trial((step,))
    memory.inside("clawker-envoy").log += (json.dumps({"source": source, "reason": "no-address"}),)
    outcome = well()
    assert (outcome.code, results(outcome)["way-out"]) == (1, "failed")
    (way_out,) = [each for each in outcome.json["checks"] if each["name"] == "way-out"]
    assert "no-address" in way_out["seen"]


def test_an_answer_while_refusals_are_only_counted_is_unclear(
    well: Callable[[], Outcome], memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be Envoy's own, whose record is among those that were not written down."""
    step = TrialStep("request", "10.213.0.20:40000", 0.1, ok=True, status=503, outcome="HTTP 503")
    memory.inside("clawker-coredns").tried = Trial((step,))
    assert results(well())["way-out"] == "ok"
    counts = itertools.count(80)
    monkeypatch.setattr(memory, "suppressed", lambda _: next(counts))
    outcome = well()
    assert results(outcome)["way-out"] == "warning"
    (way_out,) = [each for each in outcome.json["checks"] if each["name"] == "way-out"]
    assert "It can't be told who gave it" in way_out["seen"]


def test_what_depends_on_something_missing_is_skipped(
    command: Command, memory: MemoryEngine, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without settings, a stack or an engine, the rest is left out, and the cause is what has failed."""
    found = results(command("doctor", "--format", "json"))
    assert (found["stack"], found["upstream-dns"], found["way-out"]) == ("failed", "skipped", "skipped")
    settings_file.write_text("rules: [")
    found = results(command("doctor", "--format", "json"))
    assert (found["settings"], found["engine"], found["stack"]) == ("failed", "ok", "skipped")

    def refuse(_: object) -> MemoryEngine:
        raise EngineError("engine-unreachable", "There is no engine.", context=["No such file", "named by X"])

    del memory
    monkeypatch.setattr("clawker_fw.cli.connection.connect_engine", refuse)
    outcome = command("doctor", "--format", "json")
    assert (outcome.code, results(outcome)) == (1, {"settings": "failed", "engine": "failed"})
    assert outcome.json["checks"][1]["seen"] == "There is no engine. No such file; named by X"
