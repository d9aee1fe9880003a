"""Guardrails: connections that rules must never allow, and those they must always allow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.errors import SettingsError
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.promise_words import AlwaysEntry, NeverEntry
from clawker_fw.rules.promises import Promise, broken
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.validation import load_settings
from devkit.strategies import CONNECTIONS, LABELS, PORTS, names, rule_sets

Fields = Mapping[str, Any]
SOON = "2099-01-01T00:00:00Z"
ENDED = "2020-01-01T00:00:00Z"


def never(**fields: object) -> Promise:
    """Return a guardrail for something never allowed."""
    return NeverEntry.model_validate(fields).promise("the promise")


def always(**fields: object) -> Promise:
    """Return a guardrail for something always allowed."""
    return AlwaysEntry.model_validate(fields).promise("the promise")


def rules(*entries: Fields) -> RuleSet:
    return RuleSet.of(RuleEntry.model_validate(each).rule("the rule") for each in entries)


NEVER: tuple[tuple[Fields, tuple[Fields, ...], str], ...] = (
    ({"dst": "up.a.test"}, ({"dst": ".a.test"}, {"dst": "up.a.test", "action": "deny"}), ""),
    (
        {"dst": "up.a.test"},
        ({"dst": ".a.test"}, {"dst": "up.a.test", "action": "deny", "until": SOON}),
        "https .a.test:443",
    ),
    ({"dst": "a.test"}, ({"dst": "a.test", "until": ENDED},), f"https a.test:443 until {ENDED}"),
)


@pytest.mark.parametrize(("promised", "entries", "by"), NEVER, ids=str)
def test_what_is_never_allowed(promised: Fields, entries: tuple[Fields, ...], by: str) -> None:
    """A rule that allows any of it breaks the guardrail, unless rules without expiry deny that part."""
    found = broken([never(**promised)], rules(*entries))
    assert [str(each.rule)[: len(by)] for each in found] == ([by] if by else [])
    assert all(each.places == ("the promise", "the rule") for each in found)


ALWAYS: tuple[tuple[Fields, tuple[Fields, ...], str], ...] = (
    ({"dst": "a.test"}, ({"dst": "a.test", "port": 8443},), "no rule allows all of it"),
    ({"dst": "a.test"}, ({"dst": "a.test", "until": SOON},), f"`https a.test:443 until {SOON}` allows it only"),
    (
        {"dst": ".a.test"},
        ({"dst": ".a.test"}, {"dst": "up.a.test", "action": "deny", "until": SOON}),
        f"`deny any up.a.test until {SOON}` denies some of it",
    ),
    ({"dst": "a.test"}, ({"dst": "a.test", "path_rules": [{"path": "/v1"}]},), ""),
)


@pytest.mark.parametrize(("promised", "entries", "why"), ALWAYS, ids=str)
def test_what_is_always_allowed(promised: Fields, entries: tuple[Fields, ...], why: str) -> None:
    """Rules without expiry must allow all of it."""
    found = broken([always(**promised)], rules(*entries))
    assert [each.reason[: len(why)] for each in found] == ([why] if why else [])


def _around(known: RuleSet, promise: Promise) -> set[str]:
    """Return names for which the rules or the guardrail might decide differently."""
    near = {rule.destination.name for rule in known.rules} | {*promise.points}
    return near | {f"{label}.{name}" for name in near for label in (LABELS[0], "other.one")}


@given(
    rule_sets(),
    st.none() | names(),
    st.booleans(),
    st.none() | st.sampled_from(Protocol),
    st.none() | st.sampled_from(PORTS),
)
def test_never_is_what_no_connection_shows(
    known: RuleSet,
    name: str | None,
    subtree: bool,  # noqa: FBT001 - a generated value
    protocol: Protocol | None,
    port: int | None,
) -> None:
    """A guardrail is broken exactly if a covered connection gets through."""
    fields = {"dst": name and f"{'.' * subtree}{name}", "proto": protocol, "port": port}
    given_fields = {key: value for key, value in fields.items() if value}
    if not given_fields:
        return
    promise, policy = never(**given_fields), Policy(known)
    ports = {one for rule in known.rules for one in rule.ports} if port is None else {port}
    shown = any(
        policy.decide(each, spoken, at).allowed
        for each in _around(known, promise)
        if promise.covers(each)
        for spoken in ([protocol] if protocol else Protocol)
        for at in ports
    )
    assert bool(broken([promise], known)) is shown


@given(rule_sets(), names(), st.booleans(), st.sampled_from(CONNECTIONS))
def test_always_is_what_every_connection_shows(
    known: RuleSet,
    name: str,
    subtree: bool,  # noqa: FBT001 - a generated value
    connection: tuple[Protocol, int],
) -> None:
    """A guardrail is kept exactly if each covered connection is allowed."""
    protocol, port = connection
    promise, policy = always(dst=f"{'.' * subtree}{name}", proto=protocol, port=port), Policy(known)
    covered = {each for each in _around(known, promise) if promise.covers(each)}
    refused = any(not policy.decide(each, protocol, port).allowed for each in covered)
    assert bool(broken([promise], known)) is refused


WRONG = (
    ("never: [{note: x}]", "`never` needs a `dst`, a `proto` or a `port`"),
    ("always: [{port: 443}]", "`always.dst` is missing"),
    ("never: ['*.a.test']", "has a `*`; write `.a.test`"),
    ("never: [{dts: a.test}]", "`never.dts` is not a setting"),
    ("never: [host]", "write `host.docker.internal`, or what `as` names"),
)


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text for text, _ in WRONG])
def test_promises_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    """An invalid guardrail is one clear error with its place."""
    path = tmp_path / "clawker-fw.yaml"
    path.write_text(f"rules: []\n{text}\n")
    with pytest.raises(SettingsError) as raised:
        load_settings(path, {})
    assert said in raised.value.message
    assert "line 2" in raised.value.message
