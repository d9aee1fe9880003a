"""Texts of the command line: hints, records, completion, help, and the number of rules."""

import json
import re
import shlex
from pathlib import Path

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.model.probes import Records
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("--format json run", "--format"),
        ("--format=json --project x status", "--format"),
        ("certs --authority rotate", "--authority"),
        ("--method PUT explain a.test:22", "--method"),
    ],
)
def test_an_option_in_the_wrong_place(line: str, option: str, command: Command) -> None:
    """The hint says that it belongs after the command."""
    outcome = command(*shlex.split(line))
    assert outcome.code == 2
    assert outcome.err.splitlines()[0] == f"error[usage]: Option {option} is in the wrong place."
    assert f"`{option}` goes after the command. " in outcome.err.splitlines()[-1]


@pytest.mark.parametrize("line", ["run --nope", "--nope run", "--project x drift --lock-wait 3s"])
def test_an_option_that_has_no_place(line: str, command: Command) -> None:
    """The hint refers to the help."""
    outcome = command(*shlex.split(line))
    assert outcome.code == 2
    assert "No such option" in outcome.err
    assert outcome.err.splitlines()[-1].endswith("--help` lists commands and options.")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run"], 0),
        (["reload"], 0),
        (["down"], 0),
        (["nope"], 2),
        (["run", "--nope"], 2),
        (["--nope"], 2),
        (["run", "--lock-wait", "soon"], 2),
        (["--project", "Not Allowed", "run"], 2),
        ([], 2),
        (["rules"], 2),
        (["--config", "nowhere.yaml", "run"], 3),
    ],
)
def test_every_line_beside_the_answer_is_a_record(arguments: list[str], code: int, command: Command) -> None:
    """With a format for programs, every line is a record; otherwise the lines are for people."""
    changed = {"CLAWKER_FW_OTEL__INFRA_PORT": "4320"}
    command("run")
    outcome = command("--log-format", "json", *arguments, **changed)
    assert outcome.code == code
    records = [json.loads(line) for line in outcome.err.splitlines()]
    assert records
    assert all({"time", "level", "event"} <= set(each) for each in records)

    command("run")
    assert not re.search(r"^{", command(*arguments, **changed).err, re.MULTILINE)


def test_steps_findings_and_notes_are_records(command: Command, memory: MemoryEngine) -> None:
    """Standard error gives programs the same information as people."""
    command("run")
    memory.inside("clawker-envoy").lingering = 2
    outcome = command("--log-format", "json", "run", "--format", "json", CLAWKER_FW_OTEL__INFRA_PORT="4320")
    records = [json.loads(line) for line in outcome.err.splitlines()]
    found = [each for each in records if each["event"] == "finding"]
    assert [(each["sibling"], each["field"], each["running"], each["desired"]) for each in found] == [
        (sibling, "dev.clawker.firewall.otel_infra_port", "4319", "4320") for sibling in ("envoy", "coredns")
    ]
    steps = [each["step"] for each in records if each["event"] == "step"]
    assert sorted(steps) == sorted(each["text"] for each in outcome.json["steps"])


def test_status_counts_the_rules_that_are_live(
    command: Command, settings_file: Path, memory: MemoryEngine
) -> None:
    """`status` counts rules in effect; if the file has others, these are listed."""
    command("run")
    assert ": 2 rules live, 0 agents attached" in command("status").out

    settings_file.write_text("rules:\n  - dst: a.test\n  - dst: b.test\n  - dst: c.test\n")
    text = command("status").out
    assert ": 2 rules live," in text
    assert "The rules will change, " in text
    assert "  + https b.test:443\n  + https c.test:443\n  - http h.test:80\n" in text
    answer = command.json("status")
    assert (answer["rules"], answer["live_rules"], answer["other_rules"]) == (3, 2, True)

    settings_file.write_text("rules:\n  - dst: a.test\n    port: 8443\n  - dst: h.test\n    proto: http\n")
    assert "The rules will change, " in command("status").out, "as many, and others"
    command("reload")
    assert command("status", "--format", "json").json["other_rules"] is False, "the list was not committed anew"

    memory.inside("clawker-coredns").silent = "connection refused"
    answer = command.json("status")
    assert (answer["rules"], answer["live_rules"], answer["other_rules"]) == (2, None, None)
    assert "live rules unknown" in command("status").out


def test_status_tells_what_became_of_records(command: Command, memory: MemoryEngine) -> None:
    """JSON gives the numbers of arrived and lost records."""
    command("run")
    memory.inside("clawker-coredns").records = Records(1234, 5)
    answer = command.json("status")
    assert [each["telemetry"] for each in answer["siblings"]] == [
        {"sent": 0, "lost": 0},
        {"sent": 1234, "lost": 5},
    ]


def test_debug_shows_a_traceback_that_can_be_read(
    command: Command, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback is readable, followed by the error; in a record it is one field."""

    def fail() -> None:
        raise EngineError("engine-error", "The engine could not list its networks.", context=["boom"])

    monkeypatch.setattr(memory, "networks", fail)
    lines = command("--debug", "drift").err.splitlines()
    start = lines.index("Traceback (most recent call last):")
    assert any(line.startswith("    raise EngineError(") for line in lines[start:])
    assert lines[-2:] == ["error[engine-error]: The engine could not list its networks.", "  boom"]
    assert "Traceback" not in command("drift").err

    output = command("--debug", "--log-format", "json", "drift").err.splitlines()
    records = [json.loads(line) for line in output]
    assert "\n    raise EngineError(" in records[-1]["traceback"]
