"""Rules that have no effect."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.review import review
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry

NOW = 4_000_000_000.0
BEFORE, AFTER = "2090-01-01T00:00:00Z", "2099-01-01T00:00:00Z"


def rules(*entries: dict[str, object]) -> RuleSet:
    """Return a rule set with one rule per line."""
    return RuleSet.of(
        RuleEntry.model_validate(each).rule(f"f, line {line}") for line, each in enumerate(entries, 1)
    )


def remarks(*entries: dict[str, object]) -> list[tuple[str, str]]:
    """Return the code of each remark, and the place of its rule."""
    return [(each.code, each.rule.place) for each in review(rules(*entries), NOW)]


def denied(**fields: object) -> dict[str, object]:
    return {"dst": "a.test", "action": "deny", **fields}


def test_a_rule_that_several_others_deny_together_is_named() -> None:
    """The message names at most three denying rules. If one of them expires, the rule may still apply later."""
    ports: dict[str, object] = {"dst": "a.test", "proto": "tcp", "port": "5432-5435"}
    denials = [denied(port=port) for port in (80, 5432, 5433, 5434)]
    assert remarks(ports, *denials) == remarks(ports, *denials, denied(port=5435, until=AFTER)) == []
    (found,) = review(rules(ports, *denials, denied(port=5435)), NOW)
    assert str(found) == (
        "f, line 1: tcp a.test:5432-5435 never applies: all that it allows is denied by "
        "`deny any a.test:5432` (f, line 3), `deny any a.test:5433` (f, line 4), "
        "`deny any a.test:5434` (f, line 5) and 1 more"
    )


def test_a_rule_that_denies_what_is_forwarded_as_it_is_is_named() -> None:
    """A deny rule for HTTP has no effect on a port that is forwarded unchanged."""
    forwarded = {"dst": "a.test", "proto": "tcp", "port": 80}
    assert remarks(forwarded, denied(proto="http", port=80)) == [("rule-overridden", "f, line 2")]
    assert remarks({**forwarded, "until": AFTER}, denied(proto="http", port=80)) == []


ALLOWING: list[dict[str, object]] = [
    {"dst": "a.test"},
    {"dst": ".a.test"},
    {"dst": "a.test", "proto": "http"},
    {"dst": "a.test", "proto": "tcp", "port": "9000-9002"},
    {"dst": "a.test", "proto": "udp", "port": "9000-9001"},
    {"dst": "192.0.2.4", "as": "b.test", "proto": "tcp", "port": "9000-9001"},
]
DENYING = st.builds(
    lambda dst, proto, port: {"dst": dst, "action": "deny", "proto": proto, "port": port},
    st.sampled_from(["a.test", ".a.test", "b.test", ".test", ".b.test"]),
    st.none() | st.sampled_from(Protocol),
    st.none() | st.sampled_from([443, 80, 9000, 9001, 9002, "9000-9001", "9001-9002"]),
)


@given(st.lists(DENYING, max_size=8))
def test_a_rule_is_named_if_the_policy_never_follows_it(denying: list[dict[str, Any]]) -> None:
    """A rule is reported exactly if all that it allows is denied."""
    every = rules(*ALLOWING, *denying)
    named = {each.rule for each in review(every, NOW)}
    policy = Policy(every)
    for rule in (each for each in every.rules if not each.denies):
        name = f"other.{rule.destination.name}" if rule.destination.subtree else rule.destination.name
        followed = any(policy.decide(name, *key).rule == rule for key in rule.keys)
        assert followed == (rule not in named)


def test_an_expression_that_denies_a_path_without_its_slash_is_named() -> None:
    """Most hosts take `/d/x/` for `/d/x`; there is no remark if that is not allowed, or denied too."""
    denied = {"path": "~/d/x", "action": "deny"}
    for words, named in (
        ({"path_rules": [denied]}, True),
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
