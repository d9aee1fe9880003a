"""The settings of a command, their project, the stack's owner, and agents that could write the settings."""

import json
import os
from pathlib import Path

import pytest

from clawker_fw.model.containers import Mount
from clawker_fw.stack.container import ORIGIN
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import SETTINGS, Command, join


@pytest.fixture(autouse=True)
def no_users_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_: tmp_path / "home")


def names(memory: MemoryEngine) -> set[str]:
    return {each.name for each in memory.listing()}


@pytest.mark.parametrize("written", ["project: mine", "project:   'mine'  # whose", 'project: "mine"\r'])
def test_the_file_names_the_project(
    written: str, command: Command, settings_file: Path, memory: MemoryEngine
) -> None:
    """Every command uses the file's project, including `down`."""
    settings_file.write_text(f"{SETTINGS}{written}\n")
    assert command("run").code == 0
    assert names(memory) == {"mine-envoy", "mine-coredns"}
    assert command.json("status")["project"] == "mine"
    assert command("drift").code == 0
    assert command("reload").code == 0
    assert command.json("down")["project"] == "mine"
    assert names(memory) == set()


@pytest.mark.parametrize("variable", [False, True])
def test_a_project_that_is_named_comes_first(
    variable: bool,  # noqa: FBT001 - a parameter
    command: Command,
    settings_file: Path,
    memory: MemoryEngine,
) -> None:
    """Option and variable override the file."""
    settings_file.write_text(f"{SETTINGS}project: mine\n")
    arguments, environment = ([], {"CLAWKER_FW_PROJECT": "other"}) if variable else (["--project", "other"], {})
    assert command(*arguments, "run", **environment).code == 0
    assert names(memory) == {"other-envoy", "other-coredns"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("project: No Name\nrules: []\n", "line 1"),
        ("rules: []\nproject: 5five!\n", "line 2"),
    ],
)
def test_a_project_that_could_be_misread_is_refused(
    text: str, line: str, command: Command, settings_file: Path, memory: MemoryEngine
) -> None:
    """If the project is not a plain name on its line, nothing is changed."""
    settings_file.write_text(text)
    outcome = command("run")
    assert outcome.code == 3
    assert line in outcome.err.replace("\n", " ")
    assert names(memory) == set()


def test_down_of_a_file_that_cannot_be_read(command: Command, settings_file: Path, memory: MemoryEngine) -> None:
    """With an unreadable file, the project is unknown unless it is named."""
    command("run")
    settings_file.write_bytes(b"\xff\xfe")
    refused = command("down")
    assert refused.code == 3
    assert "--project" in refused.err
    assert names(memory)
    assert command("--project", "clawker", "down").code == 0
    assert names(memory) == set()


def test_another_settings_file_has_to_adopt_a_stack(
    command: Command, settings_file: Path, tmp_path: Path, memory: MemoryEngine
) -> None:
    """`run` and `reload` are refused with both files named; `--adopt` moves the stack to the new file."""
    settings_file.write_text(f"{SETTINGS}project: clawker\n")
    command("run")
    before = dict(memory.inside("clawker-coredns").files)
    other = tmp_path / "elsewhere" / "clawker-fw.yaml"
    other.parent.mkdir()
    other.write_text("rules:\n  - dst: other.test\n")
    for verb in (["run"], ["run", "--dry-run"], ["reload"], ["run", "--force-recreate"]):
        refused = command("--config", str(other), *verb)
        assert refused.failure == (6, ["settings-other"]), verb
        text = refused.err.replace("\n", "")
        assert f"made from {settings_file} on {os.uname().nodename}, for project clawker" in text
        assert f"this is {other} on {os.uname().nodename}" in text
        assert "--adopt" in text
    assert dict(memory.inside("clawker-coredns").files) == before
    answer = command.json("--config", str(other), "drift")
    (made_from,) = answer["settings"]["made_from"]
    assert made_from == {"path": str(settings_file), "host": os.uname().nodename, "project": "clawker"}
    assert f"Made from another settings file: {settings_file}" in command("--config", str(other), "status").out

    assert command("--config", str(other), "reload", "--adopt").code == 0
    assert command("--config", str(other), "run").code == 0
    assert command("run").code == 6
    assert command("run", "--adopt").code == 0
    assert command("run").code == 0


def test_a_stack_remembers_through_every_replacement(
    command: Command, settings_file: Path, tmp_path: Path, memory: MemoryEngine
) -> None:
    """New containers record the file, and a changed record alone replaces nothing."""
    command("run")
    command("run", "--force-recreate")
    for sibling in ("envoy", "coredns"):
        assert json.loads(memory.inside(f"clawker-{sibling}").files[ORIGIN].content)["path"] == str(settings_file)
    memory.remove("clawker-envoy")
    assert command("run").code == 0
    containers = {each.id for each in memory.listing()}
    other = tmp_path / "other.yaml"
    other.write_text(SETTINGS)
    moved = command.json("--config", str(other), "run")  # the same by another path
    assert (moved["changed"], moved["verdict"]) == (False, "current")
    assert {each.id for each in memory.listing()} == containers
    for sibling in ("envoy", "coredns"):
        assert json.loads(memory.inside(f"clawker-{sibling}").files[ORIGIN].content)["path"] == str(other)
    assert command("drift").code == 0
    settings_file.write_text(f"{SETTINGS}  - dst: more.test\n")
    assert command("run").code == 6
    assert command("run", "--adopt").code == 0


def test_a_stack_that_remembers_nothing_takes_the_first(command: Command, memory: MemoryEngine) -> None:
    """A lost record is not drift, and the next `run` writes one."""
    command("run")
    for sibling in ("envoy", "coredns"):
        del memory.inside(f"clawker-{sibling}").files[ORIGIN]
    assert command.json("drift")["settings"]["made_from"] == []
    assert command.json("run")["changed"] is False
    assert len(command.json("drift")["settings"]["made_from"]) == 1


def test_answers_say_what_they_are_about(
    command: Command, settings_file: Path, tmp_path: Path, memory: MemoryEngine
) -> None:
    """Each answer names the settings file and the engine, with their sources."""
    ways: list[tuple[list[str], dict[str, str], str]] = [
        ([], {}, "the current folder"),
        (["--config", str(settings_file)], {}, "--config"),
        ([], {"CLAWKER_FW_CONFIG": str(settings_file)}, "CLAWKER_FW_CONFIG"),
    ]
    for options, environment, source in ways:
        for verb in ("run", "drift", "status", "reload"):
            answer = command.json(*options, verb, **environment)
            assert (answer["settings"]["path"], answer["settings"]["source"]) == (str(settings_file), source)
            assert answer["engine"]["endpoint"] == memory.facts().endpoint
            assert answer["engine"]["source"] == "the default"
        assert f"Settings  {settings_file} ({source})" in command(*options, "status", **environment).out
    (tmp_path / "home").mkdir()
    settings_file.rename(tmp_path / "home" / settings_file.name)
    assert command.json("drift")["settings"]["source"] == "the user's config folder"
    (tmp_path / "home" / settings_file.name).unlink()
    answer = command.json("drift", CLAWKER_FW_RULES="[]")["settings"]
    assert (answer["path"], answer["source"]) == (None, "the environment")


@pytest.mark.parametrize(
    ("folder", "decides"), [("cache", False), ("state/clawker-fw/certs/clawker", True), ("docker", True)]
)
def test_folders_of_the_user_that_an_agent_can_write(
    folder: str, *, decides: bool, command: Command, settings_file: Path, memory: MemoryEngine
) -> None:
    """The cache decides nothing; the state folder has keys, and the docker CLI's folder names the engine."""
    command("run")
    source = settings_file.parent / folder
    source.mkdir(parents=True, exist_ok=True)
    join(memory, "agent", mounts=(Mount("bind", "/work", str(source)),))
    found = command.json("status")["settings"]["open"]
    assert [each["file"] for each in found] == ([str(source)] if decides else [])


def test_settings_that_an_agent_can_write_are_told(
    command: Command, settings_file: Path, memory: MemoryEngine
) -> None:
    """`status` reports container and mount, `run` and `reload` warn with a fix; read-only mounts are fine."""
    command("run")
    folder = str(settings_file.parent)
    join(memory, "agent", mounts=(Mount("bind", "/work", folder, read_only=True),))
    assert command.json("status")["settings"]["open"] == []
    assert "settings_open" not in command("run").err
    memory.remove("agent")
    join(memory, "agent", mounts=(Mount("bind", "/work", folder),))
    found = command.json("status")["settings"]["open"]
    mounted = {"container": "agent", "mount": folder, "target": "/work"}
    assert found == [{**mounted, "file": str(settings_file)}]
    text = command("status").out
    assert f"The settings are open: agent can write {settings_file}: {folder} is mounted at /work." in text
    assert "Make the mount read-only" in text
    for verb in ("run", "reload"):
        outcome = command("--log-format", "json", verb)
        assert outcome.code == 0
        (record,) = outcome.records("settings_open")
        assert (record["level"], record["container"], record["mount"]) == ("warning", "agent", folder)
        assert "--config" in record["hint"]


@pytest.mark.parametrize("arguments", [("drift",), ("reload",), ("rules", "check"), ("rules", "allow", "b.test")])
def test_elsewhere_the_hint_names_the_file_of_the_stack(
    arguments: tuple[str, ...],
    command: Command,
    settings_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a settings file here, the running stack names its own. Without a stack, `init` writes one."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    before = command(*arguments)
    assert before.code == 3
    assert "clawker-fw init" in before.err
    monkeypatch.chdir(settings_file.parent)
    assert command("run").code == 0
    monkeypatch.chdir(folder)
    after = command(*arguments)
    assert after.code == 3
    assert f"add `--config {settings_file}`" in after.err.replace("\n", "")
