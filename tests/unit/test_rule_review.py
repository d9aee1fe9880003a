"""Rules that decide nothing, and destinations on the command line."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.review import review
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry

NOW = 4_000_000_000.0
BEFORE, AFTER, LATER = "2090-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "2099-06-01T00:00:00Z"


def rules(*entries: dict[str, object]) -> RuleSet:
    """Return a set of rules, each on a line of its own."""
    return RuleSet.of(
        RuleEntry.model_validate(each).rule(f"f, line {line}") for line, each in enumerate(entries, 1)
    )


def remarks(*entries: dict[str, object]) -> list[tuple[str, str]]:
    """Return the code of each remark, and the place of its rule."""
    return [(each.code, each.rule.place) for each in review(rules(*entries), NOW)]


def test_a_rule_that_has_ended_is_named() -> None:
    """One that will end is not."""
    assert remarks({"dst": "a.test", "until": BEFORE}, {"dst": "b.test", "until": AFTER}) == [
        ("rule-ended", "f, line 1")
    ]


@pytest.mark.parametrize(
    ("rule", "deny"),
    [
        ({}, {"port": 8443}),
        ({}, {"proto": "http"}),
        ({}, {"dst": ".a.test"}),
        ({}, {"until": AFTER}),
        ({}, {"until": BEFORE}),
        ({"until": LATER}, {"until": AFTER}),
    ],
)
def test_a_rule_that_applies_to_anything_or_later_is_not_named(
    rule: dict[str, object], deny: dict[str, object]
) -> None:
    """What denies is for something else, or ends before the rule does."""
    found = remarks({"dst": "a.test", **rule}, {"dst": "a.test", "action": "deny", **deny})
    assert ("rule-overridden", "f, line 1") not in found


PORTS: dict[str, object] = {"dst": "a.test", "proto": "tcp", "port": "5432-5435"}


def denied(**fields: object) -> dict[str, object]:
    """Return a rule that denies."""
    return {"dst": "a.test", "action": "deny", **fields}


def test_a_rule_that_several_others_deny_together_is_named() -> None:
    """The sentence names some that suffice for it, at most three of them."""
    denials = [denied(port=80), *(denied(port=port) for port in (5432, 5433, 5434))]
    assert remarks(PORTS, *denials) == []
    (found,) = review(rules(PORTS, *denials, denied(port="5434-5435")), NOW)
    assert str(found) == (
        "f, line 1: tcp a.test:5432-5435 never applies: all that it allows is denied by "
        "`deny any a.test:5432` (f, line 3), `deny any a.test:5433` (f, line 4) "
        "and `deny any a.test:5434-5435` (f, line 6)"
    )
    (found,) = review(rules(PORTS, *denials, denied(port=5435)), NOW)
    assert str(found).endswith(
        "by `deny any a.test:5432` (f, line 3), `deny any a.test:5433` (f, line 4), "
        "`deny any a.test:5434` (f, line 5) and 1 more"
    )


def test_a_port_that_is_denied_for_less_time_counts_as_allowed() -> None:
    """Each port has to be denied as long as the rule exists."""
    pair: dict[str, object] = {**PORTS, "port": "5432-5433", "until": LATER}
    shorter, longer = denied(port=5432, until=AFTER), denied(port=5432, until=LATER)
    assert remarks(pair, denied(port=5433), shorter) == []
    assert remarks(pair, denied(port=5433), denied(proto="tcp", port=5432, until=AFTER), longer) == [
        ("rule-overridden", "f, line 1")
    ]


ALLOWING: list[dict[str, object]] = [
    {"dst": "a.test"},
    {"dst": ".a.test"},
    {"dst": "a.test", "proto": "http"},
    {"dst": "a.test", "proto": "tcp", "port": "9000-9002"},
    {"dst": "a.test", "proto": "udp", "port": "9000-9001"},
    {"dst": "192.0.2.4/31", "as": "b.test", "proto": "tcp", "port": "9000-9001"},
]
DENYING = st.builds(
    lambda dst, proto, port: {"dst": dst, "action": "deny", "proto": proto, "port": port},
    st.sampled_from(["a.test", ".a.test", "192-0-2-4.b.test", "192-0-2-5.b.test", ".test", ".b.test"]),
    st.none() | st.sampled_from(Protocol),
    st.none() | st.sampled_from([443, 80, 9000, 9001, 9002, "9000-9001", "9001-9002"]),
)


@given(st.lists(DENYING, max_size=8))
def test_a_rule_is_named_if_the_policy_never_follows_it(denying: list[dict[str, Any]]) -> None:
    """All that it allows is denied then, and only then, whatever the rules are."""
    every = rules(*ALLOWING, *denying)
    named = {each.rule for each in review(every, NOW)}
    policy = Policy(every)
    for rule in (each for each in every.rules if not each.denies):
        names = [f"other.{name}" if rule.destination.subtree else name for name in rule.names]
        followed = any(policy.decide(name, *key).rule == rule for name in names for key in rule.keys)
        assert followed == (rule not in named)


def test_an_expression_that_denies_a_path_without_its_slash_is_named() -> None:
    """Most hosts take `/d/x/` for `/d/x`; one that is not allowed, or is denied as well, needs no remark."""
    denied = {"path": "~/d/x", "action": "deny"}
    for words, named in (
        ({"path_rules": [denied]}, True),
        ({"path_rules": [{**denied, "methods": ["GET"]}]}, True),
        ({"path_rules": [{**denied, "path": "~/d/[a-z]+"}]}, True),
        ({"path_rules": [{**denied, "path": "~/d/x/?"}]}, False),
        ({"path_rules": [{**denied, "path": "~/d/x(?:/.*)?"}]}, False),
        ({"path_rules": [{**denied, "path": "/d/x"}]}, False),
        ({"path_rules": [denied, {"path": "/d/y"}]}, False),
        ({"path_rules": [denied, {"path": "~/d/.*"}]}, True),
    ):
        found = remarks({"dst": "a.test", **words})
        assert found == ([("path-open", "f, line 1")] if named else []), words
    (remark,) = review(rules({"dst": "a.test", "path_rules": [denied]}), NOW)
    assert "allows `/d/x/`" in str(remark)
