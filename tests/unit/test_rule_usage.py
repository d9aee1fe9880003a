"""Rule usage, judged by the current rules."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.denials.usage import together, usage_of_rules
from clawker_fw.model.usage import Usage, Use
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from devkit.stacks import rule_set
from devkit.strategies import rule_sets

NOW = 1_800_000_000.0
EMPTY = Usage("one", NOW - 1000, NOW)


def use(name: str, protocol: str = "https", port: int = 443, last: float = NOW) -> Use:
    return Use(protocol, name, port, last - 10, last, 1, 2, 3)


@given(rule_sets(20), st.lists(st.sampled_from([*"abcd"]), max_size=4), st.data())
def test_no_use_is_lost_or_counted_twice(rules: Any, labels: list[str], data: st.DataObject) -> None:  # noqa: ANN401
    """An allowed use counts for the deciding rule, a refused one for none."""
    names = [rule.destination.name for rule in rules.rules] or ["x.test"]
    uses = tuple(
        replace(use(".".join([*labels[:number], data.draw(st.sampled_from(names))])), protocol=protocol, port=port)
        for number in range(3)
        for protocol in ("https", "http", "tcp", "udp")
        for port in (80, 443, 8080)
    )
    known = replace(EMPTY, uses=tuple(dict.fromkeys(uses)))
    policy = Policy(rules.at(NOW))
    decided = [(policy.decide(each.name, Protocol(each.protocol), each.port), each) for each in known.uses]
    allowed = [(decision.rule, each) for decision, each in decided if decision.allowed]
    found = [(worth.rule, each) for worth in usage_of_rules(rules, known) for each in worth.uses]
    assert sorted(map(repr, found)) == sorted(map(repr, allowed))


def test_names_below_a_subtree_count_for_its_rule() -> None:
    """Uses count by protocol and port for the subtree's rule, or for the next wider rule if it is gone."""
    uses = use(".cdn.test"), use(".cdn.test", "http", 80), use(".gone.test"), use(".in.wide.test")
    usage = replace(EMPTY, uses=uses)
    rules = (
        ".cdn.test",
        {"dst": ".cdn.test", "proto": "http"},
        "cdn.test",
        "a.cdn.test",
        ".wide.test",
        {"dst": ".gone.test", "action": "deny"},
    )
    found = usage_of_rules(rule_set(*rules)[1], usage)
    names = {str(each.rule): [f"{one.protocol} {one.name}" for one in each.uses] for each in found if each.uses}
    assert names == {
        "https .cdn.test:443": ["https .cdn.test"],
        "http .cdn.test:80": ["http .cdn.test"],
        "https .wide.test:443": ["https .in.wide.test"],
    }


def test_both_envoys_while_one_is_replaced() -> None:
    """While Envoy is replaced, the usage of both is added."""
    old = replace(EMPTY, identity="old", uses=(use("a.test"),), lost=1, open={"443": 1})
    new = Usage("new", NOW - 10, NOW + 1, (use("a.test", last=NOW + 1), use("b.test")), open={"443": 2})
    both = together([old, new])
    of_a, of_b = usage_of_rules(rule_set("a.test", "b.test")[1], both)
    assert (of_a.connections, of_a.last, of_b.connections, of_b.last) == (2, NOW + 1, 1, NOW)
    assert (both.since, both.lost, both.open) == (NOW - 1000, 1, {"443": 3})
