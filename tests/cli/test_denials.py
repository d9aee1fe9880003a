"""`denials`: refusals of agents, with reasons and remedies."""

import json
import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.errors import ConflictError, EngineError
from clawker_fw.fwctl import HelperReader, Suppressed
from devkit.memory.container import MemoryContainer
from devkit.memory.engine import MemoryEngine
from devkit.memory.helper import service_address
from tests.cli.conftest import Command, join, record

RULES = """\
rules:
  - dst: a.test
  - dst: .wild.test
  - dst: no.wild.test
    action: deny
"""


LONG_AGO = "2026-01-01T00:00:00.000000Z"

LATER = "2999-01-01T00:00:00.000000000Z"


@pytest.fixture
def up(command: Command, memory: MemoryEngine, settings_file: Path) -> MemoryEngine:
    """A stack with an agent, and refusals in the logs of Envoy and CoreDNS."""
    settings_file.write_text(RULES)
    assert command("run").code == 0
    agent = join(memory, "builder")
    agent.started = LONG_AGO
    address = agent.networks["clawker-net"]
    proxy, resolver = memory.inside("clawker-envoy"), memory.inside("clawker-coredns")
    proxy.logged_at, resolver.logged_at = "2026-01-01T00:00:02.000000000Z", "2026-01-01T00:00:01.000000000Z"
    of_agent = {"source": f"{address}:40000"}
    resolver.log += [
        record(**of_agent, protocol="dns", port=53, name="pypi.test", type=kind, reason="no-rule")
        for kind in ("A", "AAAA", "A")
    ]
    proxy.log += [
        "[warning] no record",
        record(**of_agent, name="no.wild.test", reason="denied"),
        record(source="10.213.0.99:1", name="a.test", port=8443, reason="no-rule"),
        record(name="x.wild.test", reason="private-address", upstream="10.0.0.1:443"),
        record(name="y.wild.test", reason="private-address", upstream="169.254.169.254:443"),
        record(name="z.wild.test", reason="no-address"),
        record(protocol="http", port=80, name="h.test", reason="no-rule", method="GET", path="/p"),
        record(protocol="tcp", port=22, name=None, address="10.213.1.10", reason="no-rule"),
        record(name="a.test", reason="no-rule"),
        record(name=None, reason="no-server-name"),
        record(name="q.test", reason="word-of-tomorrow"),
        '{"reason": broken',
    ]
    return memory


def ask(command: Command, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return the refusals of a valid answer by name."""
    answer = command.json("denials", *arguments)
    return {each["name"] or each["reason"]: each for each in answer["denials"]}


def test_what_why_and_what_to_do(command: Command, up: MemoryEngine) -> None:
    """Each refusal is listed once, with the agent's name, the reason and the remedy."""
    del up
    found = ask(command)
    asked = found["pypi.test"]
    assert (asked["agent"], asked["times"], asked["types"]) == ("builder", 3, ["A", "AAAA"])
    assert (asked["sibling"], asked["last"]) == ("coredns", "2026-01-01T00:00:01.000000000Z")
    assert asked["message"] == "no rule allows this host"
    assert asked["remedy"]["command"] == "clawker-fw rules allow https://pypi.test"
    assert found["no.wild.test"]["rule"]["text"] == "deny any no.wild.test"
    assert found["no.wild.test"]["rule"]["place"].endswith("clawker-fw.yaml, line 4")
    assert (found["h.test"]["method"], found["h.test"]["path"]) == ("GET", "/p")
    assert found["h.test"]["remedy"]["command"] == "clawker-fw rules allow http://h.test"
    assert found["x.wild.test"]["remedy"]["command"].endswith("rules allow https://x.wild.test --private")
    assert found["y.wild.test"]["remedy"] == {
        "text": "No rule can allow it: no rule may reach any of its addresses.",
        "command": None,
    }
    assert found["z.wild.test"]["failed"]
    assert found["z.wild.test"]["remedy"]["command"] is None
    assert found["no-rule"]["tried"] == "10.213.1.10"
    assert found["q.test"]["message"] == "word-of-tomorrow"


def test_what_we_have_tried_ourselves(command: Command, up: MemoryEngine) -> None:
    """Attempts by `doctor` and `explain --live` from CoreDNS's addresses are attributed to it, without advice."""
    resolver = up.inside("clawker-coredns")
    addresses = {"b.test": resolver.networks["clawker-net"], "c.test": service_address(resolver)}
    resolver.log.clear()
    up.inside("clawker-envoy").log[:] = [
        record(source=f"{address}:1", name=name, reason="no-rule") for name, address in addresses.items()
    ]
    assert {name: each["agent"] for name, each in ask(command).items()} == {
        "b.test": "clawker-coredns",
        "c.test": "clawker-coredns",
    }
    assert set(ask(command, "--agent", "clawker-coredns")) == {"b.test", "c.test"}
    assert {each["remedy"]["command"] for each in ask(command).values()} == {None}


def test_selection(command: Command, up: MemoryEngine) -> None:
    """Refusals are selected by agent, reason, count and age."""
    assert set(ask(command, "--agent", "builder")) == {"pypi.test", "no.wild.test"}
    assert set(ask(command, "--reason", "denied", "--reason", "no-address")) == {"no.wild.test", "z.wild.test"}
    top = command.json("denials", "--top", "1")
    assert [each["name"] for each in top["denials"]] == ["pypi.test"]
    assert top["left_out"] > 5
    assert ask(command, "--since", "10m") == {}
    assert command("denials", "--since", "10m").out == "Nothing was refused in the last 10 min.\n"
    assert command("denials", "--reason", "no-address").out.startswith("1 refusal for 1 host.\n")
    up.inside("clawker-envoy").logged_at = datetime.fromtimestamp(time.time(), UTC).strftime("%FT%T.%f000Z")
    assert "pypi.test" not in ask(command, "--since", "10m")
    assert "h.test" in ask(command, "--since", "10m")


def test_what_envoy_alone_has_counted(command: Command, up: MemoryEngine) -> None:
    """Refusals without a log line are counted, including a predecessor's and those that came too fast."""
    envoy = up.inside("clawker-envoy")
    envoy.log[:] = [record(name="f.test", reason="no-rule", suppressed=n) for n in (40, 2)]
    answer = command.json("denials")
    assert answer["suppressed"] == [{"agent": None, "address": "10.213.0.1", "times": 42}]
    assert answer["unattributed"] == 0
    assert [each["times"] for each in answer["denials"] if each["name"] == "f.test"] == [2]
    envoy.log[:] = [record(name="f.test", reason="no-rule")]
    envoy.suppressed = 1000
    envoy.log.append('{"source":"","suppressed":234}')
    answer = command.json("denials")
    assert (answer["unattributed"], answer["suppressed"]) == (1234, [])
    told = command("denials", "--reason", "limit").out
    assert told.splitlines() == [
        "No refusal can be told apart from others.",
        "1,234 more refusals, which came too fast, of agents that Envoy can't tell apart.",
    ]
    assert command.json("denials", "--agent", "builder")["unattributed"] == 0
    envoy.log.clear()
    assert command.json("denials")["unattributed"] == 0


def test_what_an_agent_hides_in_its_noise(command: Command, up: MemoryEngine) -> None:
    """Counted refusals appear by name with the time of the last one, whether they are logged yet or not."""
    counted = {"name": "p.test", "reason": "no-rule", "times": 40, "last": "2026-01-01T00:00:02.000Z"}
    up.inside("clawker-coredns").log.clear()
    envoy = up.inside("clawker-envoy")
    envoy.lines, envoy.counted = 2, [json.loads(record(**counted))]
    envoy.logged_at = "2026-01-01T00:40:00.000000000Z"
    logged = [
        record(name="p.test", reason="no-rule", line=1),
        record(name="q.test", reason="no-rule", times=2, last="2026-01-01T00:00:01.000Z", line=2),
    ]
    for envoy.log in (logged, [*logged, record(**counted, line=3)]):  # logged since they were counted
        found = ask(command)
        assert {name: (each["times"], each["last"][:19]) for name, each in found.items()} == {
            "p.test": (41, "2026-01-01T00:40:00"),
            "q.test": (2, "2026-01-01T00:00:01"),
        }


PRIVATE = "clawker-fw rules allow https://db.test --private"


@pytest.mark.parametrize(
    ("rules", "commands"),
    [
        ("{dst: db.test}", [PRIVATE] * 3),
        ("{dst: z.test}", [PRIVATE] * 3),
        ("{dst: db.test, until: 2020-01-01T00:00:00Z}", [f"{PRIVATE} --until 8h"] * 3),
        ("{dst: db.test, allow_private: true}", [None] * 3),
        ("{dst: db.test, action: deny}", [None] * 3),
    ],
)
def test_a_private_address_that_is_on_record(
    rules: str, commands: list[str | None], command: Command, up: MemoryEngine, settings_file: Path
) -> None:
    """Advice for any refusal of the name uses private addresses on record, without a lookup."""
    settings_file.write_text(f"rules:\n  - {rules}\n")
    up.inside("clawker-coredns").log[:] = [record(protocol="dns", port=53, name="db.test", reason="no-rule")]
    up.inside("clawker-envoy").log[:] = [
        record(name="db.test", reason="no-rule"),
        record(name="db.test", reason="private-address", upstream="10.0.0.1:443"),
    ]
    found = command.json("denials")["denials"]
    assert [each["remedy"]["command"] for each in found] == commands


def test_an_agent_that_nobody_has_seen(command: Command, up: MemoryEngine) -> None:
    """The error names the known agents, also one that is gone; any address is accepted."""
    outcome = command("denials", "--agent", "nope")
    assert (outcome.code, outcome.out) == (6, "")
    assert "error[agent-unknown]: No agent called nope is known." in outcome.err
    assert "known: builder, clawker-conformance, clawker-coredns, clawker-envoy" in outcome.err
    up.remove("builder")
    assert command("denials", "--agent", "builder").code == 0
    assert command("denials", "--agent", "10.213.0.200").out == "Nothing was refused.\n"


def test_without_settings(command: Command, up: MemoryEngine, settings_file: Path) -> None:
    """Refusals are shown without advice."""
    del up
    settings_file.write_text("rules: none")
    found = ask(command)
    assert found["pypi.test"]["message"] == "no rule allows this host"
    assert found["pypi.test"]["remedy"] == {"text": None, "command": None}
    assert "No advice without settings" in command("denials").err


def test_without_a_stack(command: Command) -> None:
    """There is nothing to read, and contradictory options are refused."""
    assert (command("denials").code, "is not up" in command("denials").err) == (6, True)
    assert command("denials", "--follow", "--top", "3").code == 2


def succeed(memory: MemoryEngine, name: str) -> MemoryContainer:
    """Remove the builder, and give its address to a new container."""
    builder = memory.inside("builder")
    memory.remove("builder")
    later = join(memory, name)
    assert later.networks == builder.networks
    later.started = datetime.fromtimestamp(memory.clock(), UTC).isoformat()
    return later


@pytest.mark.parametrize(
    ("seen", "happens", "named"),
    [
        (False, lambda up: succeed(up, "later"), (None, "later")),  # before it was started
        (
            False,
            lambda up: setattr(up.inside("builder"), "network_mode", "bridge"),
            (None, "builder"),
        ),  # connected
        (True, lambda up: up.remove("builder"), ("builder", None)),  # after it was seen last
        (True, lambda up: succeed(up, "later"), ("builder", "later")),
    ],
    ids=["started", "connected", "gone", "succeeded"],
)
def test_an_agent_is_not_blamed_for_what_happened_at_another_time(
    seen: bool,  # noqa: FBT001 - a value of the table
    happens: Callable[[MemoryEngine], object],
    named: tuple[str | None, str | None],
    command: Command,
    up: MemoryEngine,
) -> None:
    """Refusals before an agent was first seen, or after it was gone, may belong to another container."""
    if seen:
        assert ask(command, "--agent", "builder")
    happens(up)
    up.inside("clawker-envoy").logged_at = LATER
    found = ask(command)
    assert (found["pypi.test"]["agent"], found["no.wild.test"]["agent"]) == named


def test_an_agent_that_was_created_anew(command: Command, up: MemoryEngine) -> None:
    """A new container with the same name and address is another agent; refusals in between are not attributed."""
    assert ask(command, "--agent", "builder")
    between = datetime.fromtimestamp(up.clock() + 60, UTC)
    up.clock_ahead = 120
    succeed(up, "builder")
    up.inside("clawker-envoy").logged_at = between.strftime("%FT%T.%f000Z")
    found = ask(command)
    assert (found["pypi.test"]["agent"], found["no.wild.test"]["agent"]) == ("builder", None)


def test_requests_that_differ(command: Command, up: MemoryEngine, settings_file: Path) -> None:
    """Each method and path is listed separately, and the commands allow exactly these."""
    settings_file.write_text("rules:\n  - dst: p.test\n    path_rules: [{path: /v1, methods: [GET]}]\n")
    up.inside("clawker-coredns").log.clear()
    tried = [("GET", "/a"), ("DELETE", "/b"), ("POST", "/c"), ("POST", "/c"), ("POST", "/d")]
    up.inside("clawker-envoy").log[:] = [
        *(
            record(protocol="https", name="p.test", reason="path", method=method, path=path, rule="others")
            for method, path in tried
        ),
        record(protocol="http", port=80, name="h.test", reason="no-rule", method="GET"),
        record(protocol="http", port=80, name="h.test", reason="no-rule", method="PUT"),
    ]
    found = command.json("denials")["denials"]
    told = [(each["name"], each["method"], each["path"], each["times"]) for each in found]
    assert sorted(told, key=str) == sorted(
        [("p.test", *each, tried.count(each)) for each in set(tried)]
        + [("h.test", each, None, 1) for each in ("GET", "PUT")],
        key=str,
    )
    for each in command.json("denials", "--reason", "path")["denials"]:
        assert command(*shlex.split(each["remedy"]["command"])[1:], "--no-reload").code == 0
    asked = [*tried, ("GET", "/v1/x"), ("GET", "/b"), ("POST", "/v1"), ("DELETE", "/bb"), ("POST", "/cc")]
    refused = [
        (method, path)
        for method, path in asked
        if command.json("explain", f"https://p.test{path}", "--method", method)["reason"] == "path"
    ]
    assert refused == asked[-4:]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConflictError("engine-error", "The container does not run."), 0),
        (EngineError("helper-silent", "fwctl said nothing for 5 s."), 4),
    ],
    ids=["stopped", "silent"],
)
def test_a_count_that_can_not_be_read_is_never_none(
    error: EngineError, code: int, command: Command, up: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped Envoy, or one that can't count, has counted nothing; otherwise an unreadable count is an error."""
    up.inside("clawker-envoy").log.append(record(name="f.test", reason="no-rule"))

    def refuse(_: object) -> Suppressed:
        raise error

    monkeypatch.setattr(HelperReader, "suppressed", refuse)
    assert command("denials").code == code


def test_a_path_that_is_not_whole_on_record(command: Command, up: MemoryEngine, settings_file: Path) -> None:
    """Envoy records only the beginning of a long path, so no command is printed."""
    settings_file.write_text("rules:\n  - dst: p.test\n    path_rules: [{path: /v1, methods: [GET]}]\n")
    for length in (254, 255):
        path = "/" + "x" * (length - 1)
        up.inside("clawker-envoy").log[:] = [
            record(protocol="https", name="p.test", reason="path", method="POST", path=path, rule="others")
        ]
        found = ask(command, "--reason", "path")["p.test"]["remedy"]
        assert (found["command"] is None) is (length == 255)
        assert ("longer than what is on record: change the paths" in found["text"]) is (length == 255)
