"""`explain`: the rules' decision, the stack's part, and the result of an attempt."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clawker_fw.cli import session
from clawker_fw.diagnose import explaining, trial
from clawker_fw.model.trials import Trial, TrialStep
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command

SOURCE = "10.213.1.20:40000"
RULES = """\
rules:
  - dst: a.test
    note: the API
  - dst: h.test
    proto: http
  - dst: .wild.test
  - dst: no.wild.test
    action: deny
"""


@pytest.fixture(autouse=True)
def rules(settings_file: Path) -> None:
    settings_file.write_text(RULES)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    moved = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        moved.now += seconds

    monkeypatch.setattr(trial, "time", SimpleNamespace(monotonic=lambda: moved.now, sleep=sleep))
    return moved


@pytest.fixture
def up(command: Command, memory: MemoryEngine) -> MemoryEngine:
    """A stack that knows the addresses of some names."""
    command("run")
    memory.inside("clawker-envoy").zone.update(
        {"a.test": ("198.51.100.7",), "x.wild.test": ("10.1.2.3",), "h.test": ("198.51.100.7", "127.0.0.1")}
    )
    return memory


def ask(command: Command, *arguments: str) -> tuple[int, Any]:
    """Return the exit code and the valid answer."""
    outcome = command("explain", "--format", "json", *arguments)
    return outcome.code, outcome.answer


def test_without_an_engine(command: Command, unreachable: Callable[[], None]) -> None:
    """Only the rules answer, and one line says why."""
    unreachable()
    code, answer = ask(command, "https://user:word@a.test/path?query")
    assert (code, answer["allowed"], answer["reason"], answer["addresses"]) == (0, True, None, None)
    assert (answer["rule"]["text"], answer["rule"]["note"]) == ("https a.test:443", "the API")
    assert answer["rule"]["place"].endswith("clawker-fw.yaml, line 2")
    text = command("explain", "b.test")
    assert text.code == 1
    assert "Answered from the rules alone: There is no engine." in text.out
    refused = command("explain", "a.test", "--live")
    assert (refused.code, refused.out) == (4, "")
    assert "word" not in json.dumps(answer)


def test_without_a_stack(command: Command) -> None:
    """Only the rules answer, and nothing can be tried."""
    code, answer = ask(command, "a.test")
    assert (code, answer["unasked"], answer["other_rules"]) == (0, "the stack is not up", None)
    assert command("explain", "a.test", "--live").failure == (6, ["not-up"])


def test_no_host_name(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is refused without an engine."""
    monkeypatch.setattr(session, "connect_engine", None)
    code, answer = ask(command, "https://[2001:db8::1]/", "--live")
    assert (code, answer["reason"], answer["remedy"], answer["live"]) == (1, "bad-name", None, None)
    assert "names only" in answer["message"]


def tried(memory: MemoryEngine, name: str, *, ok: bool = False, status: int = 0) -> None:
    """Let an attempt end with a step."""
    step = TrialStep(name, SOURCE, 0.1, ok=ok, status=status, outcome="closed \x1b[2J")
    memory.inside("clawker-coredns").tried = Trial((step,))


def record(reason: str, source: str = SOURCE) -> str:
    return json.dumps({"source": source, "reason": reason})


@pytest.mark.parametrize(
    ("asked", "step", "recorder", "lines", "reason", "contradicts"),
    [
        ("b.test", "resolve", "coredns", [record("no-rule")], "no-rule", False),
        ("a.test", "handshake", "envoy", [record("unreachable")], "unreachable", False),
        ("a.test", "handshake", "envoy", [record("no-rule"), "[]", "not JSON"], "no-rule", True),
        ("a.test", "handshake", "envoy", [record("no-rule", "10.213.0.2:40000")], None, False),
        ("a.test", "handshake", "envoy", [record("a-word-of-another-release")], None, False),
        ("a.test", "connect", "envoy", [], None, True),
        ("http://h.test", "request", "envoy", [record("no-rule")], "no-rule", True),
    ],
)
def test_what_is_refused_when_it_is_tried(
    *,
    asked: str,
    step: str,
    recorder: str,
    lines: list[str],
    reason: str | None,
    contradicts: bool,
    command: Command,
    up: MemoryEngine,
) -> None:
    """The reason comes from the record of this attempt; a contradiction with the rules is reported."""
    response = step == "request"
    tried(up, step, ok=response, status=403 if response else 0)
    up.inside(f"clawker-{recorder}").log += lines
    code, answer = ask(command, asked, "--live")
    assert code == 1
    live = answer["live"]
    assert (live["passed"], live["reason"], live["contradicts"]) == (False, reason, contradicts)
    text = command("explain", asked, "--live").out
    assert ("This contradicts the rules" in text) == contradicts
    assert "closed \\x1b[2J" in text


def test_a_status_of_the_host_is_no_refusal(command: Command, up: MemoryEngine, clock: SimpleNamespace) -> None:
    """Without a record within two seconds, the status is the host's."""
    tried(up, "request", ok=True, status=404)
    code, answer = ask(command, "http://h.test", "--live")
    assert (code, answer["live"]["passed"], answer["live"]["steps"][0]["status"]) == (0, True, 404)
    assert clock.now > 2.0


def test_what_should_be_refused_gets_through(command: Command, up: MemoryEngine) -> None:
    """The answer says so, with the exit code of a refusal."""
    tried(up, "handshake", ok=True)
    code, answer = ask(command, "b.test", "--live")
    assert (code, answer["live"]["passed"], answer["live"]["contradicts"]) == (1, True, True)


def test_rules_that_are_not_applied(command: Command, up: MemoryEngine, settings_file: Path) -> None:
    """The answer follows the settings, and says that the stack uses others."""
    del up
    settings_file.write_text(RULES.replace("a.test", "c.test"))
    code, answer = ask(command, "c.test")
    assert (code, answer["reason"], answer["other_rules"]) == (1, "no-address", True)
    assert "It serves other rules than the settings have." in command("explain", "c.test").out


PATHS = "rules:\n- {dst: a.test, path_rules: [{path: /v1, methods: [GET]}]%s}\n"


@pytest.mark.parametrize(
    ("until", "applied", "asked", "method", "sent"),
    [
        ("", True, "https://a.test/v1", "DELETE", ("DELETE", "/v1")),
        ("", True, "https://a.test/v1", "GET", ("GET", "/v1")),
        ("", True, "https://a.test/../%2F..", "PUT", ("PUT", "/../%2F..")),
        ("", False, "https://a.test/v1", "DELETE", ()),
        ("", False, "https://a.test/v1", "GET", ("GET", "/v1")),
        (", until: 2099-01-01T00:00:00Z", True, "https://a.test/v1", "DELETE", ()),
        ("", True, "wss://a.test/v1", "GET", ()),
    ],
)
def test_what_could_change_something_is_sent_only_if_it_is_surely_refused(
    until: str,
    *,
    applied: bool,
    asked: str,
    method: str,
    sent: tuple[str, ...],
    command: Command,
    up: MemoryEngine,
    settings_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unsafe request is sent only if Envoy has loaded the rules that refuse it."""
    tries: list[tuple[str, ...]] = []

    def attempted(_: object, seen: object, target: object, *request: str) -> trial.Attempted:
        del seen, target
        tries.append(request)
        name = "request" if request else "handshake"
        return trial.Attempted(Trial((TrialStep(name, SOURCE, 0.1, ok=True, status=0, outcome="done"),)), None)

    monkeypatch.setattr(explaining, "attempt", attempted)
    up.inside("clawker-envoy").zone.update({"a.test": ("198.51.100.7",)})
    settings_file.write_text("rules:\n- dst: a.test\n" if not applied else PATHS % until)
    command("reload")
    settings_file.write_text(PATHS % until)
    code, answer = ask(command, asked, "--live", "--method", method)
    assert tries == [sent]
    assert answer["live"]["contradicts"] is (bool(sent) and not answer["allowed"])
    text = command("explain", asked, "--live", "--method", method).out
    assert (f"Only the connection was tried: {method} was not sent." in text) is not bool(sent)
    assert f"0.100 s  {' '.join(sent) or 'handshake'}: done" in text
    assert code == (0 if answer["allowed"] and sent else 1)
