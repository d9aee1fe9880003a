"""Rules that decide nothing, and destinations on the command line."""

import pytest

from clawker_fw.rules.naming import Named, parse_name
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.review import review
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
    "deny",
    [
        {},
        {"proto": "https"},
        {"port": 443},
        {"proto": "https", "port": 443},
    ],
)
def test_a_rule_that_another_one_always_denies_is_named(deny: dict[str, object]) -> None:
    """The sentence names both, and the policy agrees that it is denied."""
    entries: list[dict[str, object]] = [{"dst": "a.test"}, {"dst": "a.test", "action": "deny", **deny}]
    assert remarks(*entries) == [("rule-overridden", "f, line 1")]
    (found,) = review(rules(*entries), NOW)
    assert str(found).startswith("f, line 1: https a.test:443 never applies: `deny ")
    assert str(found).endswith("(f, line 2)")
    (key,) = found.rule.keys
    assert not Policy(rules(*entries)).decide("a.test", *key).allowed


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


def test_a_rule_that_ends_before_what_denies_it_is_named() -> None:
    """It is denied as long as it exists."""
    found = remarks({"dst": "a.test", "until": AFTER}, {"dst": "a.test", "action": "deny", "until": LATER})
    assert found == [("rule-overridden", "f, line 1")]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a.test", Named("a.test")),
        (".A.test", Named(".A.test")),
        ("a.test:8443", Named("a.test", None, 8443)),
        ("HTTP://a.test", Named("a.test", "HTTP")),
        ("wss://.a.test:1/", Named(".a.test", "wss", 1)),
        ("https://a.test/path", Named("https://a.test/path")),
        ("[::1]:443", Named("[::1]:443")),
        ("a.test:", Named("a.test:")),
        ("", Named("")),
    ],
)
def test_a_destination_is_split(text: str, named: Named) -> None:
    """What has another form stays whole, so that its error shows it as it was written."""
    assert parse_name(text) == named
