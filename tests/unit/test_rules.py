"""Rule sets and the matcher: duplicates, contradictions, and which rule decides."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.matcher import Matcher
from clawker_fw.rules.ruleset import ContradictionError, RuleSet
from clawker_fw.rules.schema import Protocol, RuleEntry
from devkit.stacks import rule_set
from devkit.strategies import names_near, rule_sets


def test_duplicates_and_case_collapse_to_one_rule() -> None:
    """Three spellings of the same rule are one rule."""
    _, rules = rule_set("a.test", "A.TEST.", {"dst": "a.test", "proto": "https", "port": 443})
    assert [str(rule.destination) for rule in rules.rules] == ["a.test"]


def test_order_makes_no_difference() -> None:
    """The order of rules does not depend on how they were written."""
    assert rule_set("b.test", ".a.test", "a.test")[1] == rule_set("a.test", "b.test", ".a.test")[1]


def test_a_contradiction_is_an_error_that_names_both() -> None:
    """A destination can't both allow and deny private addresses."""
    entries = [RuleEntry(dst="b.test"), RuleEntry(dst="a.test"), RuleEntry(dst="A.test", allow_private=True)]
    with pytest.raises(ContradictionError) as caught:
        RuleSet.of(entry.rule() for entry in entries)
    assert caught.value.positions == (1, 2)


def test_default_ports_are_always_listened_on() -> None:
    """Without rules, requests on ports 80 and 443 are still refused and logged."""
    assert rule_set()[1].ports == (80, 443)
    assert rule_set({"dst": "a.test", "port": 8443})[1].ports == (80, 443, 8443)


@pytest.mark.parametrize(
    ("name", "protocol", "port", "decided_by"),
    [
        ("a.test", Protocol.HTTPS, 443, "a.test"),
        ("A.TEST", Protocol.HTTPS, 443, "a.test"),
        ("x.a.test", Protocol.HTTPS, 443, None),
        ("a.test", Protocol.HTTP, 80, None),
        ("a.test", Protocol.HTTPS, 8443, None),
        ("wild.test", Protocol.HTTPS, 443, ".wild.test"),
        ("x.y.z.wild.test", Protocol.HTTPS, 443, ".wild.test"),
        ("b.wild.test", Protocol.HTTPS, 443, ".b.wild.test"),
        ("c.b.wild.test", Protocol.HTTPS, 443, "c.b.wild.test"),
        ("x.c.b.wild.test", Protocol.HTTPS, 443, ".b.wild.test"),
        ("notwild.test", Protocol.HTTPS, 443, None),
        ("test", Protocol.HTTPS, 443, None),
    ],
)
def test_the_most_specific_rule_decides(name: str, protocol: Protocol, port: int, decided_by: str | None) -> None:
    """The exact name decides first, then the nearest enclosing subtree."""
    _, rules = rule_set("a.test", ".wild.test", ".b.wild.test", "c.b.wild.test")
    decided = Matcher(rules).decide(name, protocol, port)
    assert (str(decided.destination) if decided else None) == decided_by


@given(rule_sets())
def test_what_is_allowed_resolves(rules: RuleSet) -> None:
    """The resolver answers exactly the names that some rule allows."""
    matcher = Matcher(rules)
    for name in names_near(rules):
        allowed = any(matcher.decide(name, protocol, port) for protocol in Protocol for port in rules.ports)
        assert matcher.resolves(name) == allowed


def test_the_digest_tells_rules_apart() -> None:
    """The digest is equal for equal rules, and changes with any field of any rule."""
    _, rules = rule_set("a.test", "b.test")
    assert rules.digest == rule_set("B.TEST", "a.test", "a.test")[1].digest
    rule = rules.rules[0]
    other: dict[str, Any] = {
        "destination": Destination("a.test", subtree=True),
        "protocol": Protocol.HTTP,
        "port": 8443,
        "allow_private": True,
    }
    assert set(other) == {each.name for each in fields(rule)}
    changed = {RuleSet((replace(rule, **{name: value}), rules.rules[1])).digest for name, value in other.items()}
    assert len(changed | {rules.digest, RuleSet(rules.rules[:1]).digest}) == len(other) + 2
