"""The commands `watch` and `service`."""

import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from clawker_fw.watch import record, trusted_settings
from clawker_fw.watch.decision import Decision
from devkit.memory.engine import MemoryEngine
from devkit.waiting import until
from tests.cli.conftest import Command, DecisionsOf

pytestmark = pytest.mark.usefixtures("steady_at_once")
DECISION = "watch_decision"


def test_watch_heals_until_it_is_stopped(
    command: Command, memory: MemoryEngine, decisions_of: DecisionsOf
) -> None:
    """Each decision is a record on standard error, SIGTERM ends normally, and handlers are restored."""
    command("run")
    memory.stop("clawker-envoy")
    decisions_of(2)
    before = signal.getsignal(signal.SIGTERM)
    outcome = command("--log-format", "json", "watch", "--interval", "1")
    assert outcome.code == 0
    assert outcome.out == ""
    first, second = outcome.records(DECISION)
    assert (first["decision"], first["outcome"], first["actions"]) == ("heal", "done", ["start"])
    assert (second["decision"], second["verdict"]) == ("nothing", "current")
    assert memory.inside("clawker-envoy").status == "running"
    assert signal.getsignal(signal.SIGTERM) == before


def test_settings_that_have_just_been_changed_are_not_applied_yet(
    command: Command,
    settings_file: Path,
    decisions_of: DecisionsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that has just changed is not applied yet, which is reported; later it is."""
    command("run")
    monkeypatch.setattr(trusted_settings, "STEADY_SECONDS", 3600.0)
    settings_file.write_text("rules:\n  - dst: b.test\n")
    decisions = decisions_of(1)
    assert command("--log-format", "json", "watch", "--heal", "all").code == 0
    assert [each.error.code for each in decisions if each.error] == ["settings-changing"]
    assert command("drift").code == 1
    monkeypatch.setattr(trusted_settings, "STEADY_SECONDS", 0.1)
    until(lambda: time.time() - settings_file.stat().st_ctime > 0.1)
    decisions_of(1)
    outcome = command("--log-format", "json", "watch", "--heal", "all")
    assert [each["outcome"] for each in outcome.records(DECISION)] == ["done"]
    assert command("drift").code == 0


def test_an_emptied_settings_file_cuts_nobody(
    command: Command, settings_file: Path, memory: MemoryEngine, decisions_of: DecisionsOf
) -> None:
    """An empty file never denies everything; a file with `rules: []` does."""
    command("run")
    before = dict(memory.inside("clawker-coredns").files)
    for text in ("", "drain_timeout: 5s\n"):
        settings_file.write_text(text)
        decisions_of(1)
        (told_of,) = command("--log-format", "json", "watch", "--heal", "all").records(DECISION)
        assert (told_of["decision"], told_of["code"]) == ("retry", "settings-invalid")
        assert dict(memory.inside("clawker-coredns").files) == before
    settings_file.write_text("rules: []\n")
    decisions_of(1)
    command("watch", "--heal", "all")
    assert dict(memory.inside("clawker-coredns").files) != before


def test_watch_serves_metrics_and_health(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher is unhealthy before its first comparison, and metrics exist from the start."""
    command("run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    health: list[int] = []

    def ask(_: Decision) -> None:
        """Request the page before the decision is reported, so the answer is about the one before."""
        try:
            with urllib.request.urlopen(f"http://{place}/health") as reply:
                health.append(reply.status)
        except urllib.error.HTTPError as error:
            health.append(error.code)
            error.close()
        with urllib.request.urlopen(f"http://{place}/metrics") as reply:
            assert b'clawker_fw_build_info{stack_build_sha="' in reply.read()
        if len(health) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(record, "write", ask)
    outcome = command("watch", "--interval", "1", "--listen", place)
    assert outcome.code == 0
    assert f"served at {place}" in outcome.err
    assert health == [503, 200]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "0.0.0.0:9464"],
        ["--listen", "192.0.2.1:9464"],
        ["--listen", "unix:relative"],
        ["--heal", "some"],
        ["--interval", "100ms"],
        ["--interval", "2d"],
        ["--nope"],
        ["more"],
    ],
)
def test_options_that_make_no_sense_are_exit_code_2(arguments: list[str], command: Command) -> None:
    """An address that is not allowed is refused, such as one that others could reach."""
    assert command("watch", *arguments).code == 2
    refused = command("service", *arguments)
    assert (refused.code, refused.out) == (2, "")


def test_a_service_runs_with_its_options(command: Command, tmp_path: Path) -> None:
    """The printed unit runs `watch` with the options as given, as the user who prints it, or at login."""
    outcome = command("--host", "unix:///run/other.sock", "service", "--heal", "all", "--interval=1m")
    assert outcome.code == 0, outcome.err
    line = f"--config {tmp_path}/clawker-fw.yaml --host unix:///run/other.sock watch --heal all --interval=1m"
    assert line in outcome.out
    assert "WatchdogSec=240\n" in outcome.out
    assert ("User=" in outcome.out) is (os.geteuid() != 0)
    assert f"User={os.geteuid()}\n" in outcome.out or os.geteuid() == 0
    assert "WantedBy=multi-user.target\n" in outcome.out
    unit = command("service", "--user", "--", "--heal", "none").out
    assert "watch --heal none\n" in unit
    assert "WantedBy=default.target\n" in unit
    assert "User=" not in unit


def test_a_service_has_the_users_secrets(command: Command, settings_file: Path, tmp_path: Path) -> None:
    """It reads the file that it was printed with, where rules need one, and that file must be usable."""
    settings_file.write_text("rules: [{dst: a.test, path_rules: [{path: /v1}], inject: api}]\n")
    declared = tmp_path / "secrets.yaml"
    declared.write_text("secrets: {api: {from: {env: TOKEN}, hosts: [a.test]}}\n")
    declared.chmod(0o644)
    assert command("--secrets", "secrets.yaml", "service").code == 6
    declared.chmod(0o600)
    assert f"--secrets {declared} " in command("--secrets", "secrets.yaml", "service").out


def test_what_holds_now_holds_for_the_service(command: Command) -> None:
    """Variables for settings and for the engine are passed on, and no others."""
    variables = {
        "CLAWKER_FW_OTEL__INFRA_PORT": "4320",
        "DOCKER_HOST": "tcp://192.0.2.1:2376",
        "CLAWKER_FW_LOG_FORMAT": "text",
        "OTHER": "x",
    }
    unit = command("service", **variables).out
    assert "Environment=CLAWKER_FW_OTEL__INFRA_PORT=4320\n" in unit
    assert "Environment=DOCKER_HOST=tcp://192.0.2.1:2376\n" in unit
    assert "--log-format json" in unit
    assert "OTHER" not in unit
    assert "Environment=CLAWKER_FW_LOG_FORMAT" not in unit


def test_a_service_renews_the_certificates_of_who_prints_it(command: Command, tmp_path: Path) -> None:
    """It may write into that user's state folder and nowhere else, and finds it whoever it runs as."""
    state = tmp_path / "kept"
    unit = command("service", XDG_STATE_HOME=str(state)).out
    assert f"Environment=XDG_STATE_HOME={state}\n" in unit
    assert [line for line in unit.splitlines() if "WritePaths" in line] == [f"ReadWritePaths=-{state}/clawker-fw"]
    assert (state / "clawker-fw").stat().st_mode & 0o777 == 0o700


def test_a_service_needs_a_folder_to_write(command: Command, tmp_path: Path) -> None:
    """Without a state folder, nothing is printed."""
    (tmp_path / "kept").write_text("a file, so that nobody can make a folder here, not even root\n")
    outcome = command("service", XDG_STATE_HOME=str(tmp_path / "kept"))
    assert (outcome.code, outcome.out) == (6, "")
    assert "error[unit-unwritable]" in outcome.err
