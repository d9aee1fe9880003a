"""`rules observe` and `rules suggest`."""

from pathlib import Path

import pytest

from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import SETTINGS, Command, join, record


def test_observing_is_written_applied_and_loud(
    command: Command, memory: MemoryEngine, settings_file: Path
) -> None:
    """Every command says that the stack is observed, until it is stopped, and then the file is as before."""
    assert command("run").code == 0
    planned = command("rules", "observe", "30m", "--dry-run")
    assert (planned.code, settings_file.read_text()) == (1, SETTINGS)
    answer = command.json("rules", "observe", "30m")
    assert [each["outcome"] for each in answer["rules"]] == ["added"]
    assert answer["reload"]["verdict"] == "observing"
    assert settings_file.read_text().startswith(f"{SETTINGS}observe: {{until: ")
    drift = command("drift", "--json")
    assert (drift.code, drift.answer["verdict"], drift.findings) == (1, "observing", [])
    for words in (("status",), ("drift",), ("drift", "--agents", "ignore"), ("doctor",)):
        assert "agents reach any public host that no rule names" in command(*words).said, words
    assert command("status").said.startswith("observing")
    memory.inside("clawker-envoy").zone["new.test"] = ("203.0.113.10",)
    assert "observed https new.test:443" in command("explain", "new.test").said
    assert [each["outcome"] for each in command.json("rules", "observe", "1h")["rules"]] == ["changed"]
    assert [each["outcome"] for each in command.json("rules", "observe", "--stop")["rules"]] == ["removed"]
    assert settings_file.read_text() == SETTINGS
    assert command("drift").code == 0
    assert [each["outcome"] for each in command.json("rules", "observe", "--stop")["rules"]] == ["not found"]


@pytest.mark.parametrize(
    "words", [(), ("25h",), ("never",), ("30m", "--stop"), ("soon",), ("2020-01-01T00:00:00Z",)]
)
def test_it_needs_an_end_within_a_day(command: Command, settings_file: Path, words: tuple[str, ...]) -> None:
    """Otherwise nothing is written."""
    assert command("rules", "observe", *words).code == 2
    assert settings_file.read_text() == SETTINGS


def test_suggestions_are_shown_and_written(command: Command, memory: MemoryEngine, settings_file: Path) -> None:
    """A preset and a rule with a note, and what is not suggested with the reason."""
    assert command("run").code == 0
    for sibling in ("envoy", "coredns"):
        memory.inside(f"clawker-{sibling}").logged_at = "2999-01-01T00:00:00.000000000Z"
    source = f"{join(memory, 'builder').networks['clawker-net']}:40000"
    memory.inside("clawker-envoy").log += [
        record(source=source, name=name, reason="observed")
        for name in ("pypi.org", "files.pythonhosted.org", "new.test")
    ]
    memory.inside("clawker-coredns").log += [
        record(source=source, protocol="dns", port=53, name=name, type="A", reason=reason)
        for name, reason in (
            ("new.test", "observed"),
            ("only.test", "observed"),
            ("old.test", "no-rule"),
            ("x.local", "no-rule"),
        )
    ]
    shown = command("rules", "suggest")
    assert "1 preset and 2 rules would allow what agents wanted" in shown.said
    assert "presets: - pip # 2 of 2 hosts" in shown.said
    assert '- {dst: new.test, note: "once by builder, last at ' in shown.said
    answer = command.json("rules", "suggest", "--since", "2h")
    assert [(each["fields"]["dst"], each["need"]["times"]) for each in answer["rules"]] == [
        ("new.test", 1),
        ("old.test", 1),
    ]
    assert {each["url"]: each["text"] for each in answer["left_out"]} == {
        "https://only.test": "It was only looked up: no request followed.",
        "https://x.local": "It is a private name.",
    }
    written = command.json("rules", "suggest", "--write")
    assert {each["rule"] for each in written["rules"]} == {
        "https new.test:443",
        "https old.test:443",
        "preset pip",
    }
    assert settings_file.read_text().endswith("presets: [pip]\n")
    assert command("rules", "suggest").said.startswith("0 presets and 0 rules")
