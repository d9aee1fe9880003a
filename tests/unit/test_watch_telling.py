"""The watcher's reports: records, metrics, the health page and the service manager."""

import dataclasses
import errno
import json
import logging
import os
import re
import socket
import stat
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from unittest.mock import Mock

import pytest

from clawker_fw.agents.judge import Agent, Opening
from clawker_fw.errors import EngineError, RefusedError
from clawker_fw.model.differences import Action, Cause, Finding, Layer, Verdict
from clawker_fw.model.stacks import Sibling
from clawker_fw.report import log
from clawker_fw.watch import record
from clawker_fw.watch.address import ListenAddress, parse_address
from clawker_fw.watch.decision import Decision, Reaction, RunOutcome, Trigger
from clawker_fw.watch.healthy import ask
from clawker_fw.watch.installed import Installed
from clawker_fw.watch.metrics import Metrics
from clawker_fw.watch.notify import Manager
from clawker_fw.watch.page import Reply, WatcherHealth, served
from devkit import stacks

STOPPED = Finding(Sibling.ENVOY, Layer.STATE, "status", "exited", "running", Cause.TAMPER, Action.START)
RULE = Finding(Sibling.COREDNS, Layer.HOT, "hot/policy/names.json", "1", "2", Cause.UPGRADE, Action.COMMIT)

CURRENT = dict.fromkeys(Sibling, Verdict.CURRENT)
DRIFTED = {**CURRENT, Sibling.COREDNS: Verdict.DRIFTED}

QUIET = Decision(Trigger.INTERVAL, Reaction.NOTHING, 0.2, CURRENT)
LEFT = Decision(Trigger.START, Reaction.LEAVE, 0.2, DRIFTED, (RULE,), left=(RULE,))
HEALED = Decision(
    Trigger.EVENT, Reaction.HEAL, 1.5, DRIFTED, (STOPPED, RULE), (STOPPED,), left=(RULE,), outcome=RunOutcome.DONE
)
BLIND = Decision(
    Trigger.RETRY, Reaction.RETRY, 0.1, error=EngineError("engine-error", "No.", context=["boom"]), wait=2.0
)


@pytest.mark.parametrize(
    ("decision", "level", "line", "expected"),
    [
        (
            QUIET,
            "info",
            "current",
            {"trigger": "interval", "decision": "nothing", "verdict": "current", "found": []},
        ),
        (
            LEFT,
            "warning",
            "drifted  left for `run`: coredns hot/policy/names.json (commit)",
            {
                "decision": "leave",
                "verdict": "drifted",
                "found": [
                    {
                        "sibling": "coredns",
                        "layer": "hot",
                        "field": "hot/policy/names.json",
                        "cause": "upgrade",
                        "action": "commit",
                    }
                ],
            },
        ),
        (
            HEALED,
            "warning",
            "drifted  heal done after 1.5 s: envoy status (start)",
            {"actions": ["start"], "outcome": "done", "seconds": 1.5},
        ),
        (
            BLIND,
            "error",
            "unknown  No.  again in 2.0 s",
            {"verdict": None, "code": "engine-error", "context": ["boom"], "wait": 2.0},
        ),
    ],
    ids=lambda value: value.answer if isinstance(value, Decision) else "",
)
def test_a_decision_is_one_record(
    decision: Decision,
    level: str,
    line: str,
    expected: dict[str, object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A decision's record has the trigger, findings, action and outcome; as text, it is one line."""
    with caplog.at_level(logging.INFO, "clawker_fw"):
        record.write(decision)
    (written,) = caplog.records
    fields = json.loads(log._Formatter(log.LogFormat.JSON).format(written))  # noqa: SLF001 - as it is written
    assert (fields["event"], fields["level"]) == ("watch_decision", level)
    assert expected.items() <= fields.items()
    formatter = log._Formatter(log.LogFormat.TEXT)  # noqa: SLF001 - as it is written
    assert re.fullmatch(r"\d\d:\d\d:\d\d  (.*)", formatter.format(written))[1] == line  # type: ignore[index]


def samples(metrics: Metrics) -> dict[str, float]:
    """Return all non-zero values except those of the process, without the label of a stack above the groups."""
    page = re.sub(r',group=""|\{group=""\}|group="",', "", metrics.page().decode())
    lines = [line for line in page.splitlines() if line.startswith("clawker_fw_")]
    pairs = (line.rpartition(" ") for line in lines)
    return {name: float(value) for name, _, value in pairs if float(value)}


def test_metrics_say_what_was_seen_and_done() -> None:
    """Metrics cover verdicts, comparisons, heals, findings and the last success; unknown is never current."""
    metrics = Metrics("1.2", "abc")
    metrics.watched("")
    unknown = {f'clawker_fw_verdict{{sibling="{sibling}",verdict="unknown"}}' for sibling in Sibling}
    assert unknown <= samples(metrics).keys()
    for decision in (LEFT, HEALED, QUIET, BLIND, HEALED):
        metrics.report("", decision)
        assert (unknown <= samples(metrics).keys()) is (decision is BLIND)
    found = samples(metrics)
    assert found['clawker_fw_build_info{stack_build_sha="abc",version="1.2"}'] == 1
    assert found['clawker_fw_verdict{sibling="envoy",verdict="current"}'] == 1
    assert found['clawker_fw_verdict{sibling="coredns",verdict="drifted"}'] == 1
    assert 'clawker_fw_verdict{sibling="coredns",verdict="current"}' not in found
    assert found['clawker_fw_looks_total{decision="heal",trigger="event"}'] == 2
    assert found['clawker_fw_looks_total{decision="retry",trigger="again"}'] == 1
    assert found['clawker_fw_heals_total{action="start",outcome="done"}'] == 2
    assert found['clawker_fw_findings{cause="upgrade",layer="hot",sibling="coredns"}'] == 1
    assert found["clawker_fw_look_seconds_count"] == 5
    for moment in ("look", "current", "heal"):
        assert found[f"clawker_fw_last_{moment}_timestamp_seconds"] > 1e9


def test_health_is_a_fresh_look_that_says_current() -> None:
    """The watcher is unhealthy after findings or an error, and without a recent comparison."""
    now = [0.0]
    health = WatcherHealth(60, lambda: now[0])
    assert health.answer().status is HTTPStatus.SERVICE_UNAVAILABLE
    for decision, healthy in ((QUIET, True), (LEFT, False), (QUIET, True), (BLIND, False), (QUIET, True)):
        health.report("", decision)
        assert (health.answer().status is HTTPStatus.OK) is healthy
    now[0] = 60
    assert health.answer().status is HTTPStatus.OK
    now[0] = 61
    assert json.loads(health.answer().content) == {
        "healthy": False,
        "verdict": "current",
        "code": None,
        "age_seconds": 61.0,
    }


def test_an_open_agent_is_in_metrics_and_on_the_health_page() -> None:
    """A bypassing agent makes the stack `open`, while the firewall containers are current."""
    around = Agent("1", "agent", "image", "10.0.0.1", "", openings=(Opening("privileged", "it is privileged"),))
    health, metrics = WatcherHealth(60, lambda: 0.0), Metrics("1", "sha")
    assert health.answer(agents=False).status is HTTPStatus.SERVICE_UNAVAILABLE
    for decision, current in ((QUIET, True), (LEFT, False)):
        seen = dataclasses.replace(decision, agents=(around,))
        health.report("", seen)
        metrics.report("", seen)
        whole, siblings = (json.loads(health.answer(agents=agents).content) for agents in (True, False))
        assert (whole["healthy"], whole["verdict"], siblings["healthy"]) == (False, "open", current)
    assert samples(metrics)['clawker_fw_agents{confinement="open"}'] == 1
    assert 'verdict="open"' not in metrics.page().decode()


def test_groups_are_on_one_page() -> None:
    """One stack that is not current, or not yet compared, makes all unhealthy. A removed group is left out."""
    health, metrics = WatcherHealth(60, lambda: 0.0), Metrics("1", "sha")
    for group in ("", "web"):
        health.watched(group)
        metrics.watched(group)
    health.report("", QUIET)
    assert json.loads(health.answer().content)["verdict"] is None
    for page in (health, metrics):
        page.report("web", LEFT)
    answer = json.loads(health.answer().content)
    assert (answer["healthy"], answer["verdict"]) == (False, "drifted")
    assert [(each["group"], each["healthy"]) for each in answer["stacks"]] == [(None, True), ("web", False)]
    assert samples(metrics)['clawker_fw_verdict{group="web",sibling="coredns",verdict="drifted"}'] == 1
    for page in (health, metrics):
        page.forget("web")
    assert json.loads(health.answer().content)["healthy"]
    assert not any('clawker_fw_verdict{group="web"' in line for line in samples(metrics))


def test_addresses_of_this_machine() -> None:
    """The page listens at the given address. Host names are not resolved."""
    for text in ("127.0.0.1:9464", "127.1.2.3:0", "[::1]:9464", "unix:/run/clawker-fw/watch.sock"):
        assert str(parse_address(text)) == text
    assert str(parse_address("localhost:1")) == "127.0.0.1:1"


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:9464", ":9464", "9464", "192.0.2.1:9464", "[::]:9464", "example.com:9464", "127.0.0.1:",
     "127.0.0.1:x", "127.0.0.1:65536", "unix:relative.sock", "unix:", ""],
)  # fmt: skip
def test_addresses_that_others_could_reach(text: str) -> None:
    """Only loopback addresses and sockets are accepted."""
    with pytest.raises(ValueError, match="write"):
        parse_address(text)


PAGES = {"/metrics": lambda: Reply(b"1\n", "text/plain")}


def test_pages_are_served_on_a_unix_socket(tmp_path: Path) -> None:
    """The socket is private, is removed at the end, and replaces a leftover one."""
    path = tmp_path / "watch.sock"
    address = ListenAddress(path=path)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with served(address, PAGES):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(RefusedError), served(address, PAGES):
            pass
        assert ask(str(address), "/metrics") == (True, "1")
        assert ask(str(address), "/other") == (False, "not found")
    assert not path.exists()


def test_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    """Foreign files are not replaced."""
    with served(ListenAddress("127.0.0.1", 0), PAGES) as address:
        with pytest.raises(RefusedError) as caught, served(address, PAGES):
            pass
        assert caught.value.code == "address-refused"
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(RefusedError), served(ListenAddress(path=file), PAGES):
        pass
    assert file.read_text() == "precious"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that receives messages like systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)  # noqa: FBT003 - the library's
        yield listening


def messages(manager: socket.socket) -> list[list[str]]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode().splitlines())
        except BlockingIOError:
            return messages


def notifier(manager: socket.socket, **variables: str) -> Manager:
    return Manager({"NOTIFY_SOCKET": str(manager.getsockname()), "WATCHDOG_USEC": "1000000", **variables})


def test_the_manager_is_told_of_the_first_look_and_of_each_that_ends(manager: socket.socket) -> None:
    """READY is sent once, WATCHDOG after each comparison and during progress."""
    sender = notifier(manager, WATCHDOG_PID=str(os.getpid()))
    sender.alive("team")
    for decision in (BLIND, QUIET, BLIND):
        sender.report("team", decision)
    sender.alive("team")
    sender.stopping()
    assert messages(manager) == [
        ["READY=1", "WATCHDOG=1"],
        ["STATUS=No.", "WATCHDOG=1"],
        ["STATUS=nothing, current", "WATCHDOG=1"],
        ["STATUS=No.", "WATCHDOG=1"],
        ["WATCHDOG=1"],
        ["STOPPING=1"],
    ]


def test_the_watchdog_is_fed_when_all_stacks_are_alive(manager: socket.socket) -> None:
    """A watcher that hangs is noticed, whatever the others do. A stack that is gone does not count."""
    sender = notifier(manager)
    for stack in ("team", "team-web"):
        sender.watched(stack)
    sender.report("team", QUIET)
    sender.report("team", QUIET)
    sender.alive("team-web")
    sender.alive("team")
    sender.forget("team-web")
    sender.alive("team")
    assert messages(manager) == [
        ["READY=1", "STATUS=team: nothing, current"],
        ["STATUS=team: nothing, current"],
        ["WATCHDOG=1"],
        ["WATCHDOG=1"],
    ]


def test_a_watchdog_of_another_process_is_not_fed(manager: socket.socket) -> None:
    """No watchdog message is sent for another process, or if none is requested."""
    for variables in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}):
        sender = notifier(manager, **variables)
        sender.report("team", QUIET)
        sender.alive("team")
        assert messages(manager) == [["READY=1", "STATUS=nothing, current"]]


def test_another_release_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same release installed again, or missing for a moment, counts too; an unreadable one does not."""
    release = stacks.copied_release(tmp_path)
    installed = Installed(release)
    installed.require_same()
    stacks.change_file(release.package / "__init__.py", lambda text: text + b"# newer\n")
    with monkeypatch.context() as poor:
        poor.setattr(Path, "stat", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
        installed.require_same()
    for change in (lambda _: None, lambda release: (release.package / "__init__.py").unlink()):
        change(release)
        with pytest.raises(RefusedError) as caught:
            installed.require_same()
        assert caught.value.code == "release-changed"
