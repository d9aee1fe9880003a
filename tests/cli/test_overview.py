"""`status --all` and `config`: the stacks on an engine, and the meaning of the settings."""

import re
from pathlib import Path

from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, join


def test_all_lists_every_stack_with_its_own_settings(
    command: Command, memory: MemoryEngine, settings_file: Path, tmp_path: Path
) -> None:
    """Each stack is compared with its own settings file, wherever the command runs."""
    assert command("status", "--all").out == "There is no stack on this engine. Start one with `clawker-fw run`.\n"
    command("run")
    other = tmp_path / "other.yaml"
    other.write_text("project: other\nrules:\n  - dst: b.test\n")
    assert command("--config", str(other), "run").code == 0
    join(memory, "loose", privileged=True)
    other.write_text("project: other\nrules: []\n")
    found = {each["project"]: each for each in command.json("status", "--all")["stacks"]}
    assert (found["clawker"]["verdict"], found["clawker"]["open_agents"]) == ("open", ["loose"])
    assert (found["other"]["verdict"], found["other"]["live_rules"]) == ("drifted", 1)
    assert found["clawker"]["settings"] == str(settings_file)
    assert found["other"]["running"] == ["envoy", "coredns"]
    other.unlink()
    gone = command.json("status", "--all")["stacks"][1]
    assert (gone["verdict"], gone["live_rules"]) == ("unknown", 1)
    assert "does not exist" in gone["reason"]
    out = command("status", "--all").out
    assert out.splitlines()[2].split()[:3] == ["clawker", "open", "2"]


def test_config_says_where_each_value_comes_from(command: Command, settings_file: Path) -> None:
    """Sources are defaults, lines of the file, variables and options; the engine is not called."""
    settings_file.write_text("rules: []\nlimits:\n  connections: 7\nproject: mine\n")
    given = {"CLAWKER_FW_OTEL__INFRA_PORT": "4320"}
    outcome = command("config", "--format", "json", **given)
    found = {each["key"]: each for each in outcome.answer["settings"]}
    places = {key: (found[key]["value"], found[key]["origin"], found[key]["place"]) for key in found}
    assert places["limits.connections"] == (7, "file", "clawker-fw.yaml, line 3")
    assert places["limits.queries_per_second"] == (1000, "default", None)
    assert places["otel.infra_port"] == (4320, "environment", "CLAWKER_FW_OTEL__INFRA_PORT")
    assert places["project"] == ("mine", "file", "clawker-fw.yaml, line 4")
    out = command("--project", "mine", "config", **given).out
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("  project")] == ["--project"]
    assert "limits.connections" in out
    assert re.fullmatch(
        r"3 of \d+ settings are not the default: .*clawker-fw\.yaml \(the current folder\)", out.splitlines()[0]
    )
