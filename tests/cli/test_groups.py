"""Groups of agents: a stack for each, from one settings file."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.background import in_background
from clawker_fw.cli import session, stacks
from clawker_fw.cli.parameters import Format, Options
from clawker_fw.cli.stacks import Answer
from clawker_fw.errors import EngineError
from tests.cli.conftest import Command, Outcome

SETTINGS = """\
project: team
rules:
  - dst: a.test
never: [.corp.test]
limits: {connections: 7, queries_per_second: 5}
network: {subnet: 10.99.0.0/24}
groups:
  web:
    presets: [pip]
    limits: {connections: 9}
    rules:
      - dst: b.test
  alone:
    inherit: false
    rules: [{dst: c.test}]
  bare: {}
"""


@pytest.fixture
def grouped(settings_file: Path) -> Path:
    settings_file.write_text(SETTINGS)
    return settings_file


def _stacks(outcome: Outcome) -> dict[str | None, Any]:
    return {entry["group"]: entry for entry in outcome.valid("groups")["stacks"]}


def _hosts(command: Command, group: str) -> set[str]:
    rules = command.json("rules", "list", "--group", group)["rules"]
    return {rule["dst"] for rule in rules if not rule["preset"]}


@pytest.mark.usefixtures("grouped")
def test_a_group_adds_to_what_is_above_it(command: Command) -> None:
    """Rules, presets and promises are added, values replace, and a subnet is not inherited."""
    assert (_hosts(command, "web"), _hosts(command, "alone"), _hosts(command, "bare")) == (
        {"a.test", "b.test"},
        {"c.test"},
        {"a.test"},
    )
    settings = {each["key"]: each for each in command.json("config", "--group", "web")["settings"]}
    values = {key: each["value"] for key, each in settings.items()}
    assert values["presets"] == ["pip"]
    assert (values["limits.connections"], values["limits.queries_per_second"]) == (9, 5)
    assert values["network.subnet"] is None
    assert settings["limits.connections"]["place"] == "clawker-fw.yaml, line 10"
    refused = command("rules", "allow", "x.corp.test", "--group", "alone")
    assert refused.code == 3
    assert "`never any .corp.test` is promised (clawker-fw.yaml, line 4)" in refused.said
    assert command.json("config")["settings"][-1]["value"] == ["web", "alone", "bare"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  bare: {}", "  bare:", "line 16: `bare` has no value"),
        ("inherit: false", "inherit:", "line 14: `inherit` has no value"),
        (
            "inherit: false",
            "inherits: false",
            "`groups.alone.inherits` is not a setting. hint: Did you mean `inherit`?",
        ),
        ("connections: 9", "connections: many", "line 10: `groups.web.limits.connections`"),
        ("dst: b.test", "host: b.test", "line 12: `groups.web.rules.host` is not a setting"),
        ("  bare: {}", "  Bare: {}", "'Bare' is not a valid name of a group"),
        ("  bare: {}", "  bare: [a.test]", "line 16: `groups.bare` must be a mapping"),
        ("  bare: {}", "  bare: {project: x}", "`groups.bare.project` is not a setting"),
        ("{dst: c.test}", "{dst: x.corp.test}", "`never any .corp.test` is promised"),
        ("project: team", f"project: {'x' * 36}", "is too long: a project name has 1 to 40 characters"),
    ],
)
def test_mistakes_in_groups(command: Command, grouped: Path, old: str, new: str, said: str) -> None:
    """Each is refused with its line, whichever group is asked for."""
    grouped.write_text(SETTINGS.replace(old, new))
    for group in ("alone", "bare"):
        outcome = command("drift", "--group", group)
        if outcome.code == 3:
            break
    assert outcome.code == 3
    assert said in outcome.said


def test_an_unknown_group(command: Command, grouped: Path) -> None:
    """The error lists the groups, or says which one was meant."""
    assert "Did you mean `web`?" in command("--group", "wep", "run").said
    assert "Its groups are: web, alone, bare." in command("drift", "--group", "nothing").said
    grouped.write_text("rules: []\n")
    assert "leave out `--group`" in command("status", "--group", "web").said
    assert command("run", "--group", "Web").code == 2


def test_rules_are_edited_in_their_group(command: Command, grouped: Path) -> None:
    """Only the group's own lines change, and inherited rules are left to where they are written."""
    assert command("rules", "allow", "d.test", "--group", "web").code == 0
    assert command("rules", "allow", "e.test", "--group", "alone").code == 0
    assert command("rules", "allow", "f.test").code == 0
    assert command("rules", "remove", "c.test", "--group", "alone").code == 0
    expected = SETTINGS.replace("      - dst: b.test\n", "      - dst: b.test\n      - dst: d.test\n")
    expected = expected.replace("[{dst: c.test}]", "[{dst: e.test}]")
    expected = expected.replace("  - dst: a.test\n", "  - dst: a.test\n  - dst: f.test\n")
    assert grouped.read_text() == expected
    inherited = command("rules", "remove", "a.test", "--group", "web")
    assert (
        "is not among the rules that this command edits. It is written in clawker-fw.yaml, line 3"
        in inherited.said
    )
    grouped.write_text("rules: []\ngroups:\n  web:\n    presets: [pip]\n")
    assert command("rules", "allow", "d.test", "--group", "web").code == 0
    assert grouped.read_text() == (
        "rules: []\ngroups:\n  web:\n    rules:\n      - dst: d.test\n    presets: [pip]\n"
    )


def test_files_are_included_above_the_groups_or_in_one(command: Command, grouped: Path) -> None:
    """A file that a group includes counts for it alone."""
    (grouped.parent / "all.yaml").write_text("rules: [{dst: all.test}]\n")
    (grouped.parent / "web.yaml").write_text("rules: [{dst: web.test}]\n")
    grouped.write_text(SETTINGS.replace("  web:\n", "  web:\n    include: [web.yaml]\n") + "include: [all.yaml]\n")
    assert _hosts(command, "web") == {"a.test", "b.test", "all.test", "web.test"}
    assert _hosts(command, "alone") == {"c.test"}
    assert _hosts(command, "bare") == {"a.test", "all.test"}


def test_commands_concern_every_stack(command: Command, grouped: Path) -> None:
    """Without `--group`, each stack is one line, and the worst decides the exit code."""
    assert command("drift").code == 1
    done = command("run")
    assert done.code == 0, done.said
    names = ["team", "team-web", "team-alone", "team-bare"]
    assert done.out.splitlines() == [f"current  {name}: applied and proven" for name in names]
    assert "team-web: create" in done.err
    assert command("drift").out.splitlines() == [f"current  {name}" for name in names]
    grouped.write_text(SETTINGS.replace("c.test", "d.test"))
    differing = command("drift")
    assert differing.code == 1
    lines = differing.out.splitlines()
    assert lines[:2] == ["current  team", "current  team-web"]
    assert lines[2].startswith("drifted  team-alone: close it with `clawker-fw --group alone run`")
    assert "https d.test:443" in differing.out
    found = _stacks(command("drift", "--json"))
    assert {group: each["verdict"] for group, each in found.items()} == {
        None: "current",
        "web": "current",
        "alone": "drifted",
        "bare": "current",
    }
    assert command("reload").code == 0
    assert command("drift", "--group", "alone").out == "current  team-alone\n"
    assert [entry["verdict"] for entry in _stacks(command("status", "--json")).values()] == ["current"] * 4
    listed = command.json("status", "--all")["stacks"]
    assert [(stack["project"], stack["verdict"]) for stack in listed] == [
        (name, "current") for name in sorted(names)
    ]
    assert command("down").out.splitlines()[:4] == [f"{name} is down." for name in names]
    assert command.json("status", "--all")["stacks"] == []


@pytest.mark.usefixtures("grouped")
def test_the_service_of_a_group(command: Command) -> None:
    """Its watcher keeps the group's stack."""
    unit = command("service", "--group", "web").out
    assert '--project" "team"' in unit or "--project team " in unit
    assert "--group" in unit
    assert "team-web" in unit


def test_an_error_of_one_stack_is_its_own(command: Command, grouped: Path) -> None:
    """The others are answered about, and the error has its group."""
    command("run")
    grouped.write_text(SETTINGS.replace("{dst: c.test}", "{dst: x.corp.test}"))
    outcome = command("drift", "--json")
    assert outcome.code == 3
    found = _stacks(outcome)
    assert found["alone"]["error"]["code"] == "promise-broken"
    assert found["web"]["verdict"] == "current"
    text = command("drift")
    assert text.out.splitlines()[2].startswith("failed  team-alone: ")
    assert "error[promise-broken]" in text.err


@pytest.mark.usefixtures("grouped")
def test_explain_answers_for_each_group(command: Command) -> None:
    """One line each, with the rule that decides."""
    outcome = command("explain", "https://b.test")
    assert outcome.code == 1
    assert [line.split()[:2] for line in outcome.out.splitlines()[:4]] == [
        ["refused", "team:"],
        ["allowed", "team-web:"],
        ["refused", "team-alone:"],
        ["refused", "team-bare:"],
    ]
    assert command("explain", "https://b.test", "--group", "web").code == 0


@pytest.mark.usefixtures("grouped")
def test_one_group_is_observed_alone(command: Command, grouped: Path) -> None:
    """It is written below that group, and neither those above nor other groups are observed."""
    assert command("run").code == 0
    assert command("rules", "observe", "30m", "--group", "web").code == 0
    assert "  web:\n    observe: {until: " in grouped.read_text()
    verdicts = {group: entry["verdict"] for group, entry in _stacks(command("drift", "--json")).items()}
    assert verdicts == {None: "current", "web": "observing", "alone": "current", "bare": "current"}
    assert command("rules", "observe", "--stop", "--group", "web").code == 0
    assert grouped.read_text() == SETTINGS


def test_the_first_stack_needs_no_turn(grouped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait until it is created, so they must not keep it from being created."""
    created = threading.Event()

    def late(work: Callable[[Options], object], chosen: Options) -> "Future[object]":
        def begin() -> object:
            time.sleep(0 if chosen.group else 0.5)
            return work(chosen)

        return in_background(begin)

    def create(chosen: Options) -> Answer:
        if chosen.group is None:
            created.set()
        elif not created.wait(10):
            raise EngineError("late", "The first one was kept from being created.")
        return Answer(dict, list, lambda: chosen.project)

    monkeypatch.setattr(stacks, "_AT_A_TIME", 1)
    monkeypatch.setattr(stacks, "in_background", late)
    monkeypatch.setattr(session, "one_connection", nullcontext)
    stacks.answer(Options(config=grouped), create, Format.TEXT)
