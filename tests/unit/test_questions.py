"""Questions about refusals: which are asked, their text and order, and the effect of answers."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from clawker_fw.denials import waiting
from clawker_fw.denials.question import Question, host_of, question
from clawker_fw.denials.refusal import Counted, Refusal
from clawker_fw.denials.ruling import Allow, Deny, Leave, require_kept, ruling, typed
from clawker_fw.denials.waiting import Waiting
from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.errors import RefusedError
from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.document import parse
from clawker_fw.settings.edit import words as words_of
from clawker_fw.settings.edit.edits import Written, add
from clawker_fw.settings.edit.splice import Edit, spliced
from devkit import stacks

NOW = 1_800_000_000.0
THEN = datetime.fromtimestamp(NOW, UTC)
ENDED = "2020-01-01T00:00:00Z"
PATHS = {"dst": "p.test", "path_rules": [{"path": "/v1", "methods": ["GET"]}]}

Entry = str | Mapping[str, Any]


def refusal(name: str, reason: str = "no-rule", protocol: str = "tls", port: int = 443) -> Counted:
    refused = Refusal(Sibling.ENVOY, "10.213.0.2", protocol, name, port, reason)
    return Counted(refused, 1, "2027-01-01T00:00:00Z")


def asked(counted: Counted, *rules: Entry) -> Question | None:
    """Return the question about a refusal under these rules, if any."""
    _, known = stacks.rule_set(*rules)
    return question(Explainer(known, NOW), known.at(NOW), counted, ("builder",))


def sure(counted: Counted, *rules: Entry) -> Question:
    """Return the question about a refusal that must cause one."""
    found = asked(counted, *rules)
    assert found is not None
    return found


def edited(made: Question, reply: Allow | Deny, *rules: Entry) -> tuple[RuleSet, RuleSet]:
    """Return the rules before and after an answer, written to a file and read back."""
    settings, before = stacks.rule_set(*rules)
    there = [Written(each.rule(), place) for place, each in enumerate(settings.rules)]
    edit, _ = ruling(made, reply, "ana", THEN)(there)
    return before, after_edit(rules, edit)


def after_edit(rules: tuple[Entry, ...], edit: Edit) -> RuleSet:
    """Return the rules after editing a settings file with these rules."""
    entries = [{"dst": each} if isinstance(each, str) else each for each in rules]
    text = "rules:\n" + "".join(f"  - {json.dumps(each)}\n" for each in entries)
    values, _ = parse(spliced(text if rules else "", edit, "file"), "file")
    assert values
    _, found = stacks.rule_set(*values["rules"])
    return found


@pytest.mark.parametrize(
    "name",
    [
        "a.test",
        "a.test.",
        "x_y.test",
        "-a.test",
        "deep.s3.example.com",
        "someone.github.io",
    ],
)
def test_hosts_that_are_asked_about(name: str) -> None:
    """Exact host names are asked about, also registered names below a public suffix."""
    assert host_of(refusal(name)) == name.removesuffix(".")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "10.0.0.1",
        "0x7f000001",
        "2130706433",
        "[::1]",
        "localhost",
        "metadata",
        "metadata.google.internal",
        "printer.local",
        "1.0.0.127.in-addr.arpa",
        "clawker.internal",
        "com",
        "co.uk",
        "s3.amazonaws.com",
        ".example.com",
        "..",
        "a.test/../b.test",
        "a.test:443@b.test",
        "a.test b.test",
        "$(reboot).test",
        "a\\.test",
        "\x1b[2Ja.test",
        "a\u202etset.b",
        "p\u0430ypal.com",
        "bücher.test",
        "xn--a.test",
        "a" * 64 + ".test",
        ".".join(["a" * 60] * 5),
    ],
)
def test_names_that_nobody_is_asked_about(name: str) -> None:
    """Invalid host names, private names and public suffixes are never asked about."""
    assert host_of(refusal(name)) == ""
    assert asked(refusal(name)) is None
    held = Waiting()
    held.add(refusal(name), "builder")
    assert held.take() is None


@pytest.mark.parametrize(
    "reason",
    ["denied", "private-address", "bad-name", "limit", "timeout", "no-address", "path", "word-of-tomorrow"],
)
def test_reasons_that_nobody_is_asked_about(reason: str) -> None:
    """Refusals by deny rules, of private addresses, or unrelated to rules are never asked about."""
    assert host_of(refusal("a.test", reason)) == ""


@pytest.mark.parametrize(
    ("counted", "rules"),
    [
        (refusal("a.test"), ["a.test"]),
        (refusal("a.test", protocol="dns", port=53), [{"dst": "a.test", "proto": "http"}]),
        (refusal("a.test"), [{"dst": "a.test", "action": "deny"}]),
        (refusal("x.a.test"), [{"dst": ".a.test", "action": "deny"}]),
        (
            refusal("a.test", port=8443),
            ["a.test", {"dst": "a.test", "action": "deny", "port": 1}],
        ),
        (refusal("a.test", "expired"), [{"dst": "a.test", "until": ENDED, "allow_private": True}]),
        (refusal("x.a.test", "expired"), [{"dst": ".a.test", "until": ENDED, "path_rules": [{"path": "/x"}]}]),
        (
            refusal("at.test", "expired", "tcp", 22),
            [{"dst": "10.1.2.3", "as": "at.test", "proto": "ssh", "allow_private": True, "until": ENDED}],
        ),
        (
            refusal("at.test", "wrong-port"),
            [{"dst": "10.1.2.3", "as": "at.test", "proto": "ssh", "allow_private": True}],
        ),
    ],
)
def test_rules_that_leave_nothing_to_ask(counted: Counted, rules: list[Entry]) -> None:
    """No question if the host is meanwhile allowed, is denied by any rule, or would need several rules."""
    assert asked(counted, *rules) is None


CASES: list[tuple[Counted, list[Entry]]] = [
    (refusal("a.test"), []),
    (refusal("-a.test"), []),
    (refusal("a.test", port=8443), ["a.test"]),
    (refusal("a.test", protocol="http", port=80), ["a.test"]),
    (refusal("a.test", "wrong-port", "tcp", 22), ["a.test"]),
    (refusal("x.wild.test", port=8443), [{"dst": ".wild.test", "until": "2126-01-01T00:00:00Z"}]),
    (refusal("b.test", "expired"), [{"dst": "b.test", "until": ENDED, "note": "mine"}]),
    (refusal("y.b.test", "expired"), [{"dst": ".b.test", "until": ENDED}]),
    (refusal("p.test", "expired"), [{**PATHS, "until": ENDED}]),
]


@pytest.mark.parametrize(("counted", "rules"), CASES)
@pytest.mark.parametrize("time_", ["30m", ""])
def test_what_is_approved_is_what_is_applied(counted: Counted, rules: list[Entry], time_: str) -> None:
    """An answer allows exactly what was approved, and nothing is lost; the printed command does the same."""
    made = sure(counted, *rules)
    before, after = edited(made, Allow(time_), *rules)
    require_kept(made, Allow(time_), before, after, NOW)
    assert Explainer(after, NOW).decide(made.target).allowed
    assert not Explainer(before, NOW).decide(made.target).allowed
    fresh = [each for each in after.rules if each not in before.rules]
    assert [str(each.destination) for each in fresh] == [made.target.name]
    assert "asked by builder; answered by ana at 2027-01-15T08:00:00Z" in fresh[0].note
    assert pasted(made.allow_command(time_), rules) == without_ends(after)
    if time_:
        assert fresh[0].until == NOW + 1800
        assert not Explainer(after, NOW + 1800).decide(made.target).allowed
        assert sure(counted, *rules).target == made.target


def pasted(command: str, rules: list[Entry]) -> list[str]:
    """Return the rules after a shell has read and run a command, without their expiries."""
    words = subprocess.run(  # noqa: S602 - a command of ours, as a person pastes it
        f"printf '%s\\0' {command}", shell=True, check=True, capture_output=True
    ).stdout.decode().split("\0")[:-1]  # fmt: skip
    assert words[:3] == ["clawker-fw", "rules", "allow"]
    name, *options = words[3:]
    given = dict(zip(options[::2], options[1::2], strict=True))
    fields = {"action": "allow", "until": given.get("--until"), "note": None}
    additions = words_of.additions([name], None, None, fields, datetime.now(UTC))
    settings, _ = stacks.rule_set(*rules)
    there = [Written(each.rule(), place) for place, each in enumerate(settings.rules)]
    edit, _ = add(there, additions, time.time())
    return without_ends(after_edit(tuple(rules), edit))


def without_ends(rules: RuleSet) -> list[str]:
    """Return rules as lines without their expiries."""
    return [str(each).partition(" until ")[0] for each in rules.rules]


@pytest.mark.parametrize(("counted", "rules"), CASES)
def test_never_is_a_deny(counted: Counted, rules: list[Entry]) -> None:
    """After "never", the question does not return and other traffic stays allowed, or the answer is an error."""
    made = sure(counted, *rules)
    before, after = edited(made, Deny(), *rules)
    require_kept(made, Deny(), before, after, NOW)
    assert question(Explainer(after, NOW), after.at(NOW), counted, ("builder",)) is None
    assert not Explainer(after, NOW).decide(made.target).allowed


def test_a_note_of_a_person_is_kept() -> None:
    """An answer is appended to a person's note, and replaces an earlier answer's part."""
    rules: list[Entry] = [{"dst": "b.test", "until": ENDED, "note": "for ana; asked by x; answered by y at z"}]
    _, after = edited(sure(refusal("b.test", "expired"), *rules), Allow("30m"), *rules)
    (rule,) = after.rules
    assert rule.note == "for ana; asked by builder; answered by ana at 2027-01-15T08:00:00Z"


def test_an_answer_that_would_cut_what_is_allowed_is_refused() -> None:
    """A deny for a whole host is refused if something of the host has been allowed meanwhile."""
    made = sure(refusal("a.test"))
    assert not made.known
    before, after = edited(made, Deny(), {"dst": "a.test", "proto": "http"})
    with pytest.raises(RefusedError):
        require_kept(made, Deny(), before, after, NOW)


def test_what_a_person_types() -> None:
    """A letter or a time is an answer, with `y` for 30 minutes; anything else is not."""
    assert [typed(each) for each in ("y\n", " Y ")] == [Allow("30m")] * 2
    assert typed(" 2H \n") == Allow("2h")
    assert [typed(each) for each in ("a\n", "n", "s")] == [Allow(), Deny(), Leave()]
    nothing = ("", "m", "\n", " \n", "\t\r\n", "yes", "0m", "30", "-1h", "a b", "1000000000d")
    assert [typed(each) for each in nothing] == [None] * len(nothing)


def test_one_question_for_a_host() -> None:
    """Refusals of one host are one question, with agents and times counted, about the most specific refusal."""
    held = Waiting()
    for _ in range(3):
        held.add(refusal("a.test", protocol="dns", port=53), "builder")
    held.add(refusal("a.test", port=8443), "tests")
    found = held.take()
    assert found
    assert found.agents == Counter(builder=3, tests=1)
    assert (found.refusal.times, found.refusal.refusal.port) == (4, 8443)
    held.add(refusal("a.test"), "builder")
    assert held.take() is None
    held.close(settled=True)
    held.add(refusal("a.test"), "builder")
    assert held.take() is None


def test_many_agents() -> None:
    """More agents than fit into a network use bounded memory."""
    held = Waiting()
    for number in range(2 * waiting.MOST_AGENTS):
        held.add(refusal(f"n{number}.test"), f"agent-{number}")
    assert held.more == waiting.MOST_AGENTS
