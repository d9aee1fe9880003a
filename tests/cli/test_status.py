"""`status` with agents and without settings, and open agents as a difference for `drift`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from clawker_fw.errors import EngineError
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, join, record


def test_an_open_agent_is_a_difference(command: Command, memory: MemoryEngine) -> None:
    """`drift` and `status` name open agents and why; `drift` exits with 1 unless agents are ignored."""
    command("run")
    join(memory, "fine")
    assert command("drift").code == 0
    join(memory, "loose", privileged=True)
    outcome = command("drift")
    assert outcome.code == 1
    assert outcome.out.startswith(
        "open  clawker: stop the agents that bypass it\nopen[agent]: loose: it is privileged\n"
    )
    document = command.json("drift")
    assert document["verdict"] == "open"
    assert {each["name"]: each["state"] for each in document["agents"]} == {"fine": "fenced", "loose": "open"}
    ignored = command.json("drift", "--agents", "ignore", code=0)
    assert (ignored["verdict"], ignored["agents"]) == ("current", None)
    status = command("status").out
    assert status.startswith("open  clawker on engine")
    assert status.index("loose") < status.index("fine")  # those that need attention come first
    assert "  loose: it is privileged\n" in status
    run = command("run")
    assert (run.code, "open[agent]: loose: " in run.out) == (0, True), "it has closed what differs of the siblings"
    (reason,) = command.json("status")["agents"][1]["reasons"]
    assert reason == {"code": "privileged", "text": "it is privileged", "opens": True}


def test_status_names_no_resolver_that_does_not_exist(command: Command) -> None:
    """With another subnet in the settings, no agent can be attached until `run` has moved the stack."""
    command("run")
    moved = {"CLAWKER_FW_NETWORK__SUBNET": "10.77.0.0/20"}
    assert command("agent", "flags", **moved).code == 6
    assert command.json("status", **moved)["agent"] is None
    assert "--dns" not in command("status", **moved).out
    command("run", **moved)
    assert command.json("status", **moved)["agent"]["dns"] == "10.77.8.53"


@pytest.mark.parametrize("break_it", ["rules: [", None])
def test_status_without_settings(
    break_it: str | None, command: Command, memory: MemoryEngine, settings_file: Path
) -> None:
    """Containers, rules and agents are still shown. The error and exit code are those of `run`."""
    command("run")
    join(memory, "loose", privileged=True)
    if break_it:
        settings_file.write_text(break_it)
    else:
        settings_file.unlink()
    outcome = command("--project", "clawker", "status")
    assert outcome.code == 3
    assert "open  clawker on engine" in outcome.out
    assert "2 rules live, 1 agent attached" in outcome.out
    assert "loose: it is privileged" in outcome.out
    assert "Attach an agent" not in outcome.out  # its flags need the settings
    assert "error[settings-" in outcome.err
    document = command.json("--project", "clawker", "status")
    assert (document["rules"], document["live_rules"], document["other_rules"]) == (None, 2, None)
    assert document["unread"]["code"].startswith("settings-")


def test_status_has_what_was_refused_in_the_last_hour(command: Command, memory: MemoryEngine) -> None:
    """Each agent's refusals are counted, with the latest shown; older ones are left to `denials`."""
    command("run")
    join(memory, "builder")
    address = memory.inside("builder").networks["clawker-net"]
    asked = {"source": f"{address}:40000", "protocol": "dns", "port": 53, "type": "A", "reason": "no-rule"}
    resolver = memory.inside("clawker-coredns")
    resolver.log += [record(**asked, name=f"{letter}.example") for letter in "abcdefa"]
    resolver.logged_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000000000Z"
    document = command.json("status")
    assert document["agents"][0]["refused"] == 7
    assert len(document["refusals"]) == 5
    assert {each["reason"] for each in document["refusals"]} == {"no-rule"}
    assert {(each["agent"], each["address"]) for each in document["refusals"]} == {("builder", address)}
    denials = command.json("denials")["denials"]
    assert {(each["agent"], each["address"]) for each in denials} == {("builder", address)}
    out = command("status").out
    assert "dns f.example:53" in out
    assert "`clawker-fw denials` has all of them" in out
    resolver.logged_at = "2026-01-01T00:00:01.000000000Z"
    document = command.json("status")
    assert (document["refusals"], document["agents"][0]["refused"]) == ([], 0)


def test_the_last_hour_is_the_engine_s(command: Command, memory: MemoryEngine) -> None:
    """Records carry the Docker host's time, whatever the local clock says."""
    command("run")
    memory.clock_ahead = -7200
    resolver = memory.inside("clawker-coredns")
    resolver.log.append(record(protocol="dns", name="a.example", type="A", reason="no-rule"))
    resolver.logged_at = f"{datetime.now(UTC) - timedelta(hours=2):%Y-%m-%dT%H:%M:%S}.000000000Z"
    assert len(command.json("status")["refusals"]) == 1


def test_a_log_that_can_not_be_read(
    command: Command, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a warning, not the same as no refusals; all else is shown."""
    command("run")

    def fail(*_: object, **__: object) -> NoReturn:
        raise EngineError("engine-error", "The engine could not read the log.", context=["no driver"])

    monkeypatch.setattr(memory, "log", fail)
    outcome = command("status", "--format", "json")
    assert (outcome.code, outcome.answer["verdict"]) == (0, "current")
    assert {each["code"]: each["message"] for each in outcome.json["warnings"]} == {
        "refusals-unreadable": "What was refused can't be read: The engine could not read the log. no driver"
    }
    assert "warning[refusals-unreadable]: What was refused" in command("status").out


def test_programs_get_the_summary_of_drift(command: Command, settings_file: Path) -> None:
    """`status` has the lines of `drift` for any difference; none for a current stack or without settings."""

    def lines(name: str) -> list[str]:
        return list(command.json(name)["summary"])

    assert lines("status") == ["clawker is not up yet: it will be created, with 2 rules."]
    command("run")
    assert lines("status") == []
    settings_file.write_text("rules:\n  - dst: a.test\n  - dst: b.test\n")
    assert "  + https b.test:443" in lines("status")
    assert lines("status") == lines("drift")
    settings_file.write_text("rules: none")
    assert lines("status") == []


def test_a_notice_about_the_host(command: Command, settings_file: Path, memory: MemoryEngine) -> None:
    """A notice appears in the first `run` and in `doctor`, with a way to acknowledge it, and always in JSON."""
    memory.sources_checked = False
    assert "acknowledged: [host-hears-agents]" in command("run").out
    shown = {verb: "host-hears-agents" in command(*verb.split()).out for verb in NOTICED}
    assert shown == NOTICED
    assert [each["code"] for each in command("status", "--json").json["warnings"]] == ["host-hears-agents"]
    command("down")
    settings_file.write_text(settings_file.read_text() + "acknowledged: [host-hears-agents]\n")
    assert "host-hears-agents" not in command("run").out


NOTICED = dict.fromkeys(("run", "run --dry-run", "drift", "status", "reload", "reload --dry-run"), False) | {
    "doctor": True
}
"""Whether a command shows a notice about the host after the first `run`."""


def test_a_notice_follows_the_verdict(command: Command, memory: MemoryEngine, settings_file: Path) -> None:
    """Each command shows a notice in its second line until it is acknowledged; then only `doctor` does."""
    memory.has = replace(memory.has, forwards=False)
    command("run")
    for verb in ("drift", "status", "reload", "run"):
        first, second, *_ = command(verb).out.splitlines()
        assert first.startswith("current  clawker")
        assert second.startswith("warning[no-forwarding]: ")
    settings_file.write_text(settings_file.read_text() + "acknowledged: [no-forwarding]\n")
    assert "no-forwarding" not in "".join(command(verb).out for verb in ("drift", "status", "reload", "run"))
    assert "no-forwarding" in command("doctor").out


def test_the_drift_labels_are_shown(command: Command, settings_file: Path) -> None:
    """Each container has a line with all three labels, even when they agree; JSON has both values."""
    command("run")
    build = command.json("status")["siblings"][0]["labels"]["stack_build_sha"]["running"]
    same = f"infra_certs_ready false, otel_infra_port 4319, stack_build_sha {build[:7]}"
    out = command("status").out
    assert (f"envoy: {same}" in out, f"coredns: {same}" in out) == (True, True)
    settings_file.write_text("rules: []\notel: {infra_port: 4444}\n")
    for sibling in command.json("status")["siblings"]:
        assert sibling["labels"]["otel_infra_port"] == {"running": "4319", "desired": "4444"}
    assert "otel_infra_port 4319 → 4444" in command("status").out
    settings_file.write_text("rules: none")
    assert command.json("status")["siblings"][0]["labels"]["otel_infra_port"]["desired"] is None
