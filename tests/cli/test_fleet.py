"""`fleet`: many hosts at once, with a verdict for each, and exit codes for scripts."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clawker_fw.cli import session
from clawker_fw.engine.locate import EngineLocation
from clawker_fw.errors import EngineError
from clawker_fw.model.stacks import Sibling
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, Outcome, join

Machines = dict[str, MemoryEngine]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """Engines by the last part of `unix:///NAME`. Others are unreachable, and `hangs` hangs."""
    known: Machines = {}
    ending = threading.Event()

    def connect(place: EngineLocation, seconds: float) -> MemoryEngine:
        del seconds
        name = place.address.rpartition("/")[2]
        if name == "hangs":
            ending.wait(60)
        if name == "lies":
            raise KeyError("Names")
        if name not in known:
            raise EngineError("engine-unreachable", f"The Docker engine at {place.address} can't be reached.")
        engine = known[name]
        monkeypatch.setattr(engine, "close", lambda: None, raising=False)
        return engine

    monkeypatch.setattr(session, "connect_place", connect)
    yield known
    ending.set()


@pytest.fixture
def up(command: Command, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MemoryEngine]:
    """Create an engine with a stack from the current settings file."""

    def make(name: str) -> MemoryEngine:
        engine = machines[name] = MemoryEngine()
        monkeypatch.setattr(session, "connect_engine", lambda _: engine)
        assert command("run").code == 0
        return engine

    return make


def addresses(*names: str) -> list[str]:
    """Return options that name some engines, with time for a busy machine."""
    return [*(word for name in names for word in ("--host", f"unix:///{name}")), "--timeout", "600s"]


def verdicts(outcome: Outcome) -> dict[str, str]:
    return {each["name"].rpartition("/")[2]: each["verdict"] for each in outcome.answer["hosts"]}


def test_every_host_has_a_row(
    command: Command, machines: Machines, up: Callable[..., MemoryEngine], settings_file: Path
) -> None:
    """Current, drifted, open, empty, dead, silent and lying hosts are told apart."""
    text = settings_file.read_text()
    settings_file.write_text("rules:\n  - dst: a.test\n")
    up("old")
    settings_file.write_text(text)
    up("good")
    join(up("loose"), "agent", privileged=True)
    machines["empty"] = MemoryEngine()
    asked = addresses("old", "good", "loose", "empty", "dead", "lies")
    outcome = command("fleet", "status", *asked, "--format", "json")
    assert outcome.code == 1
    assert verdicts(outcome) == {
        "dead": "unreachable",
        "empty": "no-stack",
        "good": "current",
        "lies": "unknown",
        "loose": "open",
        "old": "drifted",
    }
    answer = outcome.json
    found = {each["name"].rpartition("/")[2]: each for each in answer["hosts"]}
    assert {name: each["error"] and each["error"]["code"] for name, each in found.items()} == {
        **dict.fromkeys(("empty", "good", "loose", "old")),
        "dead": "engine-unreachable",
        "lies": "host-unintelligible",
    }
    assert {each["findings"] for each in answer["hosts"]} == {None}
    assert found["loose"]["open_agents"] == ["agent"]
    assert found["old"]["rules"] == {**found["old"]["rules"], "count": 1, "others_than_most": True}
    assert found["good"]["rules"]["others_than_most"] is False
    assert found["good"]["release"]["installed"] is True
    assert (found["good"]["proven"]["by"], found["old"]["proven"]) == ("comparison", None)
    assert found["old"]["summary"][0].startswith("The rules will change")
    assert (answer["current"], answer["total"]) == (1, 6)
    (late,) = command.json("fleet", "status", "--host", "unix:///hangs", "--timeout", "1s")["hosts"]
    assert (late["verdict"], late["error"]["code"]) == ("unreachable", "host-late")
    shown = command("fleet", "status", *asked)
    assert shown.code == 1
    assert shown.out.splitlines()[0] == (
        "1 of 6 hosts are current; 1 drifted, 1 open, 1 unknown, 1 no-stack, 1 unreachable."
    )
    assert "unix:///loose  open\n  Agent agent has a way around the firewall.\n" in shown.out


def test_findings_of_hosts_that_are_not_current(
    command: Command, up: Callable[..., MemoryEngine], settings_file: Path
) -> None:
    """`--diff` shows how each differs, as `drift` does, and nothing about current hosts."""
    up("good")
    settings_file.write_text("rules:\n  - dst: b.test\nlimits:\n  connections: 7\n")
    up("other")
    outcome = command("fleet", "status", "--diff", *addresses("good", "other"), "--format", "json")
    assert (outcome.code, verdicts(outcome)) == (1, {"good": "drifted", "other": "current"})
    alone = command.json("drift")
    assert [each["findings"] for each in alone["siblings"]] == [[], []]
    drifted, current = outcome.json["hosts"]
    assert current["findings"] == []
    assert {each["sibling"] for each in drifted["findings"]} == {each.value for each in Sibling}
    shown = command("fleet", "status", "--diff", *addresses("good", "other")).out
    assert ("\nunix:///good  drifted" in shown, "\nunix:///other" in shown) == (True, False)


def test_exit_codes(command: Command, up: Callable[..., MemoryEngine], settings_file: Path) -> None:
    """Exit codes are 0 if all are current, 4 if none answered, 2 for contradictory options, 3 for settings."""
    up("one")
    up("two")
    outcome = command("fleet", "status", *addresses("two", "one"))
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "All 2 hosts are current.")
    nobody = command("fleet", "status", *addresses("dead", "gone"))
    assert (nobody.code, nobody.out.splitlines()[0]) == (4, "0 of 2 hosts are current; 2 unreachable.")
    assert command("--host", "unix:///one", "fleet", "status").code == 2
    unknown = command("fleet", "status", "--context", "nobody")
    assert unknown.failure == (4, ["context-unknown"])
    settings_file.write_text("rulez: []\n")
    assert command("fleet", "status", *addresses("one")).code == 3
