"""The commands about rules."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from clawker_fw.cli import session
from clawker_fw.errors import EngineError
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import SETTINGS, Command

ADDED = "  - dst: new.test\n"


@pytest.fixture
def no_engine(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Commands that must not call an engine."""

    def refuse(_: object) -> MemoryEngine:
        raise AssertionError("the engine was asked")

    monkeypatch.setattr(session, "connect_engine", refuse)
    return command


def edit(command: Command, *arguments: str, code: int = 0, stdin: str = "") -> Any:  # noqa: ANN401 - JSON
    """Run an editing command, and return its answer after checking the schema."""
    outcome = command("rules", *arguments, "--format", "json", stdin=stdin)
    assert outcome.code == code, outcome.err
    return outcome.answer


def outcomes(answer: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - JSON
    return [(each["outcome"], each["rule"]) for each in answer["rules"]]


def test_rules_are_listed_without_an_engine(no_engine: Command, settings_file: Path) -> None:
    """Rules come in canonical order, with remaining time, note, file and line."""
    soon = (datetime.now(UTC) + timedelta(minutes=12, seconds=30)).isoformat(timespec="seconds")
    settings_file.write_text(
        f"rules:\n- dst: z.test\n  until: {soon}\n"
        '- {dst: .a.test, action: deny, note: "no\\x1b way"}\n'
        "- {dst: a.test, port: 5000, allow_private: true}\n- {dst: b.test, until: 2020-01-01T00:00:00Z}\n"
    )
    lines = [" ".join(line.split()) for line in no_engine("rules", "list").out.splitlines()]
    assert lines[0] == "4 rules: 4 in clawker-fw.yaml"
    assert lines[1] == "https a.test:5000 clawker-fw.yaml, line 5; also private addresses"
    assert lines[2] == "deny any .a.test clawker-fw.yaml, line 4; no\\x1b way"
    assert lines[3] == "https b.test:443 clawker-fw.yaml, line 6; ended"
    assert lines[4].startswith("https z.test:443 clawker-fw.yaml, line 2; ends in 12 min")
    answer = no_engine.json("rules", "list")
    assert answer["settings"] == {"path": str(settings_file), "source": "the current folder"}
    assert [(each["dst"], each["proto"], each["port"], each["action"]) for each in answer["rules"]] == [
        ("a.test", "https", 5000, "allow"),
        (".a.test", None, None, "deny"),
        ("b.test", "https", 443, "allow"),
        ("z.test", "https", 443, "allow"),
    ]
    assert [each["ended"] for each in answer["rules"]] == [False, False, True, False]
    settings_file.write_text("rules: []")
    assert no_engine("rules", "list").out == "There are no rules: everything is denied.\n"
    assert no_engine.json("rules", "list")["rules"] == []


def test_rules_are_checked_without_an_engine(no_engine: Command, settings_file: Path) -> None:
    """The answer counts rules by file, and names those without effect."""
    settings_file.with_name("team.yaml").write_text("rules: [{dst: t.test}]")
    settings_file.write_text(
        "include: [team.yaml]\nrules: [{dst: a.test}, {dst: a.test, action: deny},\n"
        "{dst: b.test, until: 2020-01-01T00:00:00Z}]"
    )
    outcome = no_engine("rules", "check")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "valid  4 rules: 3 in clawker-fw.yaml, 1 in team.yaml",
        (
            "warning[rule-overridden]: clawker-fw.yaml, line 2: https a.test:443 never applies: "
            "all that it allows is denied by `deny any a.test` (clawker-fw.yaml, line 2)."
        ),
        "warning[rule-ended]: clawker-fw.yaml, line 3: https b.test:443 until 2020-01-01T00:00:00Z has ended.",
    ]
    answer = no_engine.json("rules", "check")
    assert answer["files"] == [{"path": "clawker-fw.yaml", "rules": 3}, {"path": "team.yaml", "rules": 1}]
    assert [each["code"] for each in answer["warnings"]] == ["rule-overridden", "rule-ended"]
    settings_file.write_text(SETTINGS)
    outcome = no_engine("rules", "check", CLAWKER_FW_RULES="[{dst: e.test}]")
    assert outcome.out == "valid  1 rule: 0 in clawker-fw.yaml, 1 in CLAWKER_FW_RULES\n"
    settings_file.unlink()
    assert no_engine("rules", "check", CLAWKER_FW_RULES="[]").out == "valid  0 rules\n"


@pytest.mark.parametrize(
    "rules",
    ["- dst: bad {}\n", "- dst: a{}.test\n- {{dst: a{}.test, allow_private: true}}\n"],
    ids=["bad", "both"],
)
def test_check_shows_the_mistakes_that_other_commands_leave_out(
    rules: str, no_engine: Command, settings_file: Path
) -> None:
    """`check` shows all mistakes; other commands show ten, and name `check`."""
    settings_file.write_text("rules:\n" + "".join(rules.format(n, n) for n in range(14)))
    listed, checked = (no_engine("rules", verb) for verb in ("list", "check"))
    assert (listed.code, listed.out, checked.code, checked.out) == (3, "", 3, "")
    assert listed.err.count("\n  clawker-fw.yaml, line ") == 10
    assert "\n  and 4 more; `clawker-fw rules check` shows all\n" in listed.err
    assert checked.err.count("\n  clawker-fw.yaml, line ") == 14
    assert "more" not in checked.err
    (logged,) = no_engine("--log-format", "json", "rules", "check").records()
    assert len(logged["context"]) == 14


def test_an_added_rule_is_live_and_a_removed_one_is_not(command: Command, settings_file: Path) -> None:
    """The file is edited, and the running stack follows once; `status` agrees."""
    command("run")
    answer = edit(command, "allow", "new.test")
    assert outcomes(answer) == [("added", "https new.test:443")]
    assert answer["rules"][0]["place"] == "clawker-fw.yaml, line 5"
    assert settings_file.read_text() == SETTINGS + ADDED
    assert answer["reload"]["rules"] == {"added": ["https new.test:443"], "removed": [], "presets": []}
    assert command.json("status")["live_rules"] == 3
    again = edit(command, "allow", "new.test")
    assert outcomes(again) == [("unchanged", "https new.test:443")]
    assert (again["changed"], again["reload"]) == (False, None)
    removed = edit(command, "remove", "new.test", "other.test")
    assert outcomes(removed) == [("removed", "https new.test:443"), ("not found", "other.test")]
    assert removed["reload"]["verdict"] == "current"
    assert settings_file.read_text() == SETTINGS
    assert command("drift").code == 0


def test_rules_that_are_saved_and_not_applied(
    command: Command, memory: MemoryEngine, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has the error, and its commands name the same stack."""
    command("run")
    error = EngineError("engine-error", "It failed.", hint="Try `clawker-fw run` again.")
    monkeypatch.setattr(memory, "networks", Mock(side_effect=error))
    outcome = command("--config", "clawker-fw.yaml", "rules", "allow", "new.test", "--json")
    answer = outcome.answer
    assert (outcome.code, answer["changed"], answer["reload"]) == (4, True, None)
    assert (answer["error"]["code"], answer["error"]["exit_code"]) == ("engine-error", 4)
    assert f"`clawker-fw --config {settings_file} run`" in answer["error"]["hint"]
    assert "The rules are saved in clawker-fw.yaml, and not applied." in answer["error"]["context"]
    assert settings_file.read_text() == SETTINGS + ADDED


def test_without_a_stack_the_edit_stays(command: Command, settings_file: Path) -> None:
    """The answer says that the rules apply with the first `run`."""
    outcome = command("rules", "allow", "new.test")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "added      https new.test:443  clawker-fw.yaml, line 5",
        "Saved in clawker-fw.yaml: it applies with the first `clawker-fw run`.",
    ]
    assert settings_file.read_text() == SETTINGS + ADDED
    found = edit(command, "remove", "new.test")
    assert (found["changed"], found["reload"]) == (True, None)
    assert settings_file.read_text() == SETTINGS


def test_no_engine_is_asked_when_nothing_is_applied(no_engine: Command, settings_file: Path) -> None:
    """The engine is not called with `--no-reload`, or when nothing changes."""
    shown = no_engine("rules", "allow", "new.test", "--no-reload", "--dry-run")
    assert (shown.code, settings_file.read_text()) == (1, SETTINGS)
    assert f"+{ADDED}" in shown.out
    assert edit(no_engine, "remove", "a.test", "--no-reload", "--dry-run", code=1)["changed"] is False
    assert edit(no_engine, "allow", "a.test", "--dry-run")["rules"][0]["outcome"] == "unchanged"
    assert outcomes(edit(no_engine, "allow", "new.test", "--no-reload")) == [("added", "https new.test:443")]
    assert settings_file.read_text() == SETTINGS + ADDED
    assert outcomes(edit(no_engine, "remove", "x.test")) == [("not found", "x.test")]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("allow", "new.test"), "dst: new.test"),
        (("allow", ".new.test:8443", "--private"), "dst: .new.test\n    port: 8443\n    allow_private: true"),
        (("allow", "http://new.test"), "dst: new.test\n    proto: http"),
        (("allow", "new.test", "--proto", "WSS", "--port", "1"), "dst: new.test\n    port: 1"),
        (
            ("allow", "wss://new.test", "--path", "/v1"),
            'dst: new.test\n    path_rules: [{path: "/v1"}]\n    websocket: true',
        ),
        (
            ("deny", "new.test:80", "--proto", "http", "--note", "it's: x"),
            'dst: new.test\n    proto: http\n    port: 80\n    action: deny\n    note: "it\'s: x"',
        ),
        (("allow", "co.uk", "--force"), "dst: co.uk\n    force: true"),
        (
            ("allow", "new.test", "--until", "2099-01-01T01:00:00+01:00"),
            "dst: new.test\n    until: 2099-01-01T00:00:00Z",
        ),
        (
            ("allow", "--path", "/v1", "https://new.test", "wss://new.test"),
            'dst: new.test\n    path_rules: [{path: "/v1"}]\n    websocket: true',
        ),
        (("allow", "bücher.test"), "dst: xn--bcher-kva.test"),
        (("allow", "https://-x.new.test"), 'dst: "-x.new.test"'),
        (("allow", "ssh://new.test"), "dst: new.test\n    proto: ssh"),
        (("allow", "tcp://new.test:8000-8010"), "dst: new.test\n    proto: tcp\n    port: 8000-8010"),
        (
            ("allow", "10.1.2.3:5432", "--as", "db.test", "--proto", "tcp", "--private"),
            "dst: 10.1.2.3\n    as: db.test\n    proto: tcp\n    port: 5432\n    allow_private: true",
        ),
        (
            ("allow", "https://host:443", "--as", "web.test"),
            "dst: host\n    as: web.test\n    proto: https\n    port: 443",
        ),
        (
            ("allow", "tcp://host:2375", "--force"),
            "dst: host\n    proto: tcp\n    port: 2375\n    force: true",
        ),
    ],
)
def test_a_rule_is_written_as_short_as_possible(
    arguments: tuple[str, ...], line: str, no_engine: Command, settings_file: Path
) -> None:
    """Defaults are left out, and the file is valid."""
    edit(no_engine, *arguments, "--no-reload")
    assert settings_file.read_text() == f"{SETTINGS}  - {line}\n"
    assert no_engine("rules", "check").code == 0


def test_a_name_that_begins_with_a_hyphen_comes_after_two_of_them(no_engine: Command, settings_file: Path) -> None:
    """After `--`, a name that begins with a hyphen is not read as an option."""
    assert no_engine("rules", "deny", "--no-reload", "--", "-x.new.test").code == 0
    assert settings_file.read_text() == f'{SETTINGS}  - dst: "-x.new.test"\n    action: deny\n'
    asked = no_engine("rules", "remove", "--no-reload", "--", "-x.new.test")
    assert asked.out == "removed    deny any -x.new.test  clawker-fw.yaml, line 5\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("allow", "co.uk"), "use `--force`"),
        (("allow", "https://a.test/path"), "'a.test/path' has a path; write only the host's name"),
        (("allow", "10.0.0.1", "--as", "a.test"), "use `--private`"),
        (("allow", "a.test:443", "--port", "444"), "'a.test:443' and `--port 444` contradict each other"),
        (("allow", "http://a.test", "--proto", "https"), "contradict each other"),
        (("allow", "a.test", "--until", "2020-01-01T00:00:00Z"), "has passed"),
        (
            ("allow", "a.test", "--until", "5"),
            "one from now, like `30m`, `8h` or `7d`, or `never`",
        ),
        (("allow", "a.test", "--note", "x" * 201), "`note`: string should have at most 200 characters"),
        (("allow",), "NAME"),
        (("remove", "*.a.test"), "has a `*`"),
        (("remove", "a.test", "--action", "log"), "`action`: input should be 'allow' or 'deny', not 'log'"),
        (("remove", "10.20.0.5"), "'10.20.0.5' is an address, and rules are removed by the name that agents use"),
    ],
)
def test_a_mistake_on_the_command_line_changes_nothing(
    arguments: tuple[str, ...], sentence: str, no_engine: Command, settings_file: Path
) -> None:
    """The exit code is 2, and the message is the same as for the settings file."""
    outcome = no_engine("rules", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert sentence in outcome.err
    assert settings_file.read_text() == SETTINGS


@pytest.mark.parametrize(
    ("rest", "allowed_by"),
    [
        ("{dst: api.b.test}", "https api.b.test:443"),
        ("{dst: .api.b.test}, {dst: api.b.test, action: deny}", "https .api.b.test:443"),
        ("{dst: b.test}", "https b.test:443"),
        ("{dst: .test, force: true}, {dst: b.test, action: deny}", "https .test:443"),
        ("{dst: api.b.test, proto: http}, {dst: api.b.test, port: 8443}, {dst: bb.test}", None),
        ("{dst: api.b.test}, {dst: api.b.test, action: deny}", None),
        ("{dst: api.b.test, until: 2020-01-01T00:00:00Z}", None),
    ],
)
def test_a_rule_that_allows_some_of_what_a_removed_one_did_is_told(
    rest: str, allowed_by: str | None, no_engine: Command, settings_file: Path
) -> None:
    """After removing a subtree, rules for names in it are reported if they allow the same protocol and port."""
    settings_file.write_text(f"rules: [{{dst: .b.test}}, {rest}]")
    remove = ("remove", ".b.test", "--no-reload", "--dry-run")
    (removed,) = edit(no_engine, *remove, code=1)["rules"]
    assert removed["allowed_by"] == allowed_by
    told = f", but `{allowed_by}` still allows it, at least in part" if allowed_by else ""
    assert no_engine("rules", *remove).out.splitlines()[0] == (
        f"removed    https .b.test:443  clawker-fw.yaml, line 1{told}"
    )


def test_an_address_is_removed_with_the_name_that_stands_for_it(no_engine: Command, settings_file: Path) -> None:
    """By name, all or by protocol and port; `host` is removed by either name."""
    settings_file.write_text(
        "rules:\n- {dst: 192.0.2.5, as: db.test, proto: tcp, port: 5432}\n"
        "- {dst: 192.0.2.5, as: db.test, proto: ssh}\n- {dst: 192.0.2.6, as: db.test, proto: tcp, port: 5433}\n"
        "- {dst: db.test, proto: http}\n"
    )
    assert outcomes(edit(no_engine, "remove", "tcp://db.test:5432", "ssh://db.test", "--no-reload")) == [
        ("removed", "tcp db.test:5432 at 192.0.2.5"),
        ("removed", "ssh db.test:22 at 192.0.2.5"),
    ]
    assert settings_file.read_text() == (
        "rules:\n- {dst: 192.0.2.6, as: db.test, proto: tcp, port: 5433}\n- {dst: db.test, proto: http}\n"
    )
    settings_file.write_text(
        "rules:\n- {dst: host, proto: tcp, port: 5432}\n- {dst: host, proto: tcp, port: 5433}\n"
        "- {dst: host, as: db.test, proto: tcp, port: 5434}\n"
    )
    assert outcomes(edit(no_engine, "remove", "host:5432", "db.test", "--no-reload")) == [
        ("removed", "tcp host.docker.internal:5432 at host"),
        ("removed", "tcp db.test:5434 at host"),
    ]
    removed = edit(no_engine, "remove", "host.docker.internal", "--no-reload")
    assert outcomes(removed) == [("removed", "tcp host.docker.internal:5433 at host")]


def test_a_rule_that_has_no_effect_is_warned_of(command: Command, settings_file: Path) -> None:
    """The editing command warns, and so do `run`, `reload` and `drift`."""
    command("run")
    assert "warning" not in command("drift").err
    answer = edit(command, "deny", "a.test", "--no-reload")
    assert [each["code"] for each in answer["warnings"]] == ["rule-overridden"]
    assert edit(command, "deny", "other.test", "--no-reload")["warnings"] == []
    for verb in ("drift", "run", "reload"):
        assert command(verb).err.count("never applies: ") == 1
    settings_file.write_text(
        "rules:\n" + "".join(f"- {{dst: a{n}.test, until: 2020-01-01T00:00:00Z}}\n" for n in range(12))
    )
    told = command("drift").err
    assert told.count(" has ended.\n") == 10
    assert "2 more rules decide nothing" in told


def test_a_rule_that_contradicts_another_is_named_with_its_origin(no_engine: Command, settings_file: Path) -> None:
    """The origin is the command line, because the settings file has no such line."""
    claims = "two rules use port 443 of a.test: tcp a.test:443 and https a.test:443"
    line = f"error[rules-contradict]: clawker-fw.yaml, line 2: {claims}.\n  "
    outcome = no_engine("rules", "allow", "tcp://a.test:443")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith(f"{line}the command line\n  clawker-fw.yaml, line 2\n")
    both = no_engine("rules", "allow", "tcp://new.test:443", "new.test")
    assert both.err.splitlines() == [
        f"error[rules-contradict]: the command line: {claims.replace('a.test', 'new.test')}.",
        "  the command line",
        "hint: Keep one of the two.",
    ]
    assert settings_file.read_text() == SETTINGS


def test_an_end_of_the_stack_meanwhile_is_told_with_the_edit(
    command: Command, settings_file: Path, memory: MemoryEngine
) -> None:
    """The JSON answer is printed although the reload fails."""
    command("run")
    memory.remove(memory.inside("clawker-envoy").id)
    outcome = command("rules", "allow", "new.test", "--format", "json")
    assert outcome.code == 6
    assert outcome.answer["reload"] is None
    assert settings_file.read_text() == SETTINGS + ADDED
