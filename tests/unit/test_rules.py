"""Rule sets: duplicates, contradictions, expiry and equality."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.paths import Paths
from clawker_fw.rules.rule import Protocol, Rule, RuleAction
from clawker_fw.rules.ruleset import MOST_UDP_PORTS, ConflictsError, RuleSet, TooManyError, about_ports
from devkit.stacks import rule_set
from devkit.strategies import rules

PRIVATE = {"dst": "a.test", "proto": "ssh", "allow_private": True}


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        (
            {"proto": "tcp", "port": 443},
            {},
            "two rules use port 443 of a.test: tcp a.test:443 and https a.test:443",
        ),
        ({"proto": "ssh"}, PRIVATE, "two rules for a.test (ssh 22) contradict each other"),
        ({"dst": "192.0.2.1", "as": "a.test"}, {}, "lead to different hosts"),
    ],
)
def test_rules_that_claim_one_port_of_a_name(
    first: dict[str, object], second: dict[str, object], conflict: str
) -> None:
    """TLS and HTTP rules can share a port; a forwarding rule can't, not even with a subtree's rule."""
    rules = [{"dst": "a.test", **first}, {"dst": "a.test", **second}]
    with pytest.raises(ConflictsError) as caught:
        rule_set(*rules)
    (found,) = caught.value.conflicts
    assert conflict in found.sentence


def test_ports_of_udp_are_counted_apart() -> None:
    """UDP ports have a lower limit, because each needs a listener and a cluster."""
    several = [{"dst": f"n{number}.test", "proto": "udp", "port": "1-100"} for number in range(5)]
    assert (
        rule_set(*several, {"dst": "t.test", "proto": "tcp", "port": "1-1000"})[1].opaque_ports(datagrams=True)
        == MOST_UDP_PORTS
    )
    with pytest.raises(TooManyError, match="there are 501 ports of udp rules; at most 500 are supported"):
        rule_set(*several, {"dst": "one.test", "proto": "udp", "port": 53})


def test_rules_that_differ_in_their_end_are_one() -> None:
    """The later expiry wins, and no expiry is latest. Expired rules are dropped."""
    early, late = ({"dst": "a.test", "until": f"2027-01-0{day}T00:00:00Z"} for day in (1, 2))
    (rule,) = rule_set(early, late, early)[1].rules
    assert rule.until == datetime(2027, 1, 2, tzinfo=UTC).timestamp()
    (rule,) = rule_set(early, "a.test", late)[1].rules
    assert rule.until is None
    _, rules = rule_set(early, "b.test")
    end = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert rules.at(end - 1) is rules
    assert [str(rule.destination) for rule in rules.at(end).rules] == ["b.test"]


def test_the_digest_tells_rules_apart() -> None:
    """Equal rules have equal digests; any changed field changes the digest."""
    _, rules = rule_set("a.test", "b.test")
    assert rules.digest == rule_set("B.TEST", "a.test", "a.test")[1].digest
    rule = rules.rules[0]
    other: dict[str, Any] = {
        "destination": Destination("a.test", subtree=True),
        "protocol": Protocol.HTTP,
        "port": 8443,
        "allow_private": True,
        "action": RuleAction.DENY,
        "until": 1_800_000_000,
        "last_port": 8450,
        "host": "192.0.2.1",
        "paths": Paths(),
    }
    assert set(other) == {each.name for each in fields(rule) if each.compare}
    changed = {RuleSet((replace(rule, **{name: value}), rules.rules[1])).digest for name, value in other.items()}
    assert len(changed | {rules.digest, RuleSet(rules.rules[:1]).digest}) == len(other) + 2


@given(st.lists(rules(), max_size=10))
def test_rules_contradict_each_other_just_where_both_claim_a_port(found: list[Rule]) -> None:
    """Rules contradict exactly if a forwarding rule shares a name and a port with another rule."""
    claiming = [
        (one, other)
        for one in found
        for other in found
        if one.opaque and one is not other and other.protocol and not other.denies
        if (one.transport is Protocol.UDP) is (other.transport is Protocol.UDP)
        if set(one.ports) & set(other.ports) and any(other.covers(name) for name in [one.destination.name])
    ]
    told = list(about_ports(found))
    assert {id(each.first) for each in told} <= {id(one) for one, _ in claiming}
    assert bool(told) == bool(claiming)
