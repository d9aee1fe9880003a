"""`doctor`: each check, with its result and advice."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.engine import host_network
from clawker_fw.model.probes import Records
from clawker_fw.model.trials import Trial, TrialStep
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, Outcome, join


def results(outcome: Outcome) -> dict[str, str]:
    return {each["name"]: each["health"] for each in outcome.answer["checks"]}


@pytest.fixture(autouse=True)
def _usual_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the machine does not track bridged connections."""
    monkeypatch.setattr(host_network, "tracks_bridged", lambda: False)
    monkeypatch.setattr(host_network, "most_tracked", lambda: 65_536)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def well(command: Command, memory: MemoryEngine, settings_file: Path) -> Callable[[], Outcome]:
    """A stack that is up, and whose names resolve."""
    settings_file.chmod(0o644)
    command("run")
    for container in ("clawker-envoy", "clawker-coredns"):
        memory.inside(container).zone = {"a.test": ("192.0.2.1",), "h.test": ("192.0.2.2",)}
    return lambda: command("doctor", "--format", "json")


def test_nothing_is_wrong(well: Callable[[], Outcome], command: Command) -> None:
    """All checks pass, and the exit code is 0."""
    outcome = well()
    checks = (
        "settings permissions engine clocks stack kernel bridged-frames tracked-connections agents upstream-dns "
        "refusal way-out"
    )
    assert results(outcome) == dict.fromkeys(checks.split(), "ok")
    assert (outcome.code, outcome.json["healthy"]) == (0, True)
    assert "ok       clocks: " in command("doctor").out
    assert "clawker-fw.yaml has 2 rules.\n" in command("doctor").out


def test_the_proxy_of_the_shell_is_offered(
    well: Callable[[], Outcome], command: Command, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` and `init` show the settings that equal the shell's variables, and take nothing over."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,10.0.0.0/8,.corp.example")
    offered = 'upstream: {"proxy": "http://proxy.corp.example:3128", "no_proxy": [".corp.example"]}'
    (check,) = (check for check in well().answer["checks"] if check["name"] == "upstream-proxy")
    assert (check["health"], offered in check["seen"]) == ("warning", True)
    assert offered in command("init", "--force").out
    assert "#proxy:" in settings_file.read_text()


def test_an_agent_that_can_fill_the_table_of_connections(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bridged frames that are tracked, and a small table, cause warnings with advice."""
    command("run")
    monkeypatch.setattr(host_network, "tracks_bridged", lambda: True)
    monkeypatch.setattr(host_network, "most_tracked", lambda: 50_000)
    seen = command("doctor", "--format", "json")
    assert results(seen)["bridged-frames"] == results(seen)["tracked-connections"] == "warning"
    assert "bridge-nf-call-iptables=0" in seen.out
    assert "-i br-" in seen.out


@pytest.mark.parametrize(
    ("mode", "health"), [(0o777, "warning"), (0o775, "warning"), (0o1777, "ok"), (0o755, "ok")]
)
def test_a_folder_in_which_others_can_replace_the_settings(
    mode: int, health: str, well: Callable[[], Outcome], settings_file: Path, command: Command
) -> None:
    """A warning names the folder, unless it is sticky, so that others can't replace a file there."""
    settings_file.parent.chmod(mode)
    assert results(well())["permissions"] == health
    named = f"{settings_file.parent} can be written by others (mode {mode:04o})"
    assert (named in " ".join(command("doctor", COLUMNS="400").out.split())) is (health == "warning")


def test_settings_in_a_folder_of_another_user(
    well: Callable[[], Outcome], settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's owner could replace the settings, so there is a warning."""
    actual = Path.stat

    def of_another(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        status = actual(path, follow_symlinks=follow_symlinks)
        return os.stat_result((*status[:4], 4711, *status[5:])) if path == settings_file.parent else status

    monkeypatch.setattr(Path, "stat", of_another)
    assert results(well())["permissions"] == "warning"


def test_each_thing_that_can_be_wrong(
    well: Callable[[], Outcome], memory: MemoryEngine, settings_file: Path, command: Command
) -> None:
    """A failed check has advice and the exit code is 1; a warning does not change it."""
    settings_file.chmod(0o666)
    memory.clock_ahead = 90.0
    join(memory, "raw", capabilities_dropped=())
    memory.inside("clawker-envoy").zone = {"a.test": ("192.0.2.1",)}  # and another name may be mistyped
    warned = well()
    assert warned.code == 0
    assert {name for name, health in results(warned).items() if health == "warning"} == {
        "permissions",
        "clocks",
        "agents",
        "upstream-dns",
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


def test_an_answer_of_our_own_is_no_way_out(well: Callable[[], Outcome], memory: MemoryEngine) -> None:
    """Envoy itself answers unreachable requests, so a refusal on record means that the host was not reached."""
    source = "10.213.0.20:40000"
    step = TrialStep("request", source, 0.1, ok=True, status=503, outcome="HTTP 503")
    memory.inside("clawker-coredns").tried = Trial((step,))
    memory.inside("clawker-envoy").log += (json.dumps({"source": source, "reason": "no-address"}),)
    outcome = well()
    assert (outcome.code, results(outcome)["way-out"]) == (1, "failed")
    assert "no-address" in seen_of(outcome, "way-out")
    assert re.search("iptables: false.*MTU", seen_of(outcome, "way-out"))
    memory.stop("clawker-envoy")
    memory.inside("clawker-coredns").tried = Trial((replace(step, ok=False, status=0, outcome="timed out"),))
    advice = seen_of(well(), "way-out")
    assert ("Envoy does not run" in advice, "iptables" in advice) == (True, False)


def test_what_depends_on_something_missing_is_skipped(
    command: Command, settings_file: Path, unreachable: Callable[[], None]
) -> None:
    """Without settings, a stack or an engine, dependent checks are skipped, with the failed check as the cause."""
    found = results(command("doctor", "--format", "json"))
    assert (found["stack"], found["upstream-dns"], found["way-out"]) == ("failed", "skipped", "skipped")
    settings_file.write_text("rules: [")
    found = results(command("doctor", "--format", "json"))
    assert (found["settings"], found["engine"], found["stack"]) == ("failed", "ok", "skipped")
    unreachable()
    outcome = command("doctor", "--format", "json")
    assert (outcome.code, results(outcome)) == (1, {"settings": "failed", "engine": "failed"})
    assert outcome.json["checks"][1]["seen"] == "There is no engine. No such file; named by X"


def seen_of(outcome: Outcome, check: str) -> str:
    """Return the result of a check, and its advice."""
    (found,) = [each for each in outcome.json["checks"] if each["name"] == check]
    return f"{found['seen']} {found['advice']}"


def test_telemetry_that_never_arrives_fails(command: Command, memory: MemoryEngine, settings_file: Path) -> None:
    """Even with ready certificates, lost records are reported."""
    settings_file.write_text(f"{settings_file.read_text()}otel:\n  endpoint: collector.test:4317\n")
    command("run")
    assert results(command("doctor", "--format", "json"))["telemetry"] == "ok"
    memory.inside("clawker-envoy").records = Records(0, 1200)
    outcome = command("doctor", "--format", "json")
    assert results(outcome)["telemetry"] == "failed"
    assert "Nothing of envoy has arrived at collector.test:4317: 1,200 records" in seen_of(outcome, "telemetry")
    memory.inside("clawker-envoy").records = Records(5, 1)
    assert results(command("doctor", "--format", "json"))["telemetry"] == "warning"
    memory.inside("clawker-envoy").records = Records(5, 0)
    assert results(command("doctor", "--format", "json"))["telemetry"] == "ok"
