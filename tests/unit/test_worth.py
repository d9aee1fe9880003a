"""What rules are worth: which uses belong to which rule, by the rules of now."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.denials.usage import together, worths
from clawker_fw.model import Usage, Use
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from devkit.stacks import rule_set
from devkit.strategies import rule_sets

NOW = 1_800_000_000.0
EMPTY = Usage("one", NOW - 1000, NOW)


def use(name: str, protocol: str = "https", port: int = 443, last: float = NOW) -> Use:
    """Return a use."""
    return Use(protocol, name, port, last - 10, last, 1, 2, 3)


def worth_of(usage: Usage, *rules: Any) -> dict[str, list[str]]:  # noqa: ANN401 - rules as tests write them
    """Return the names that were used of each rule."""
    return {
        str(each.rule): [f"{one.protocol} {one.name}" for one in each.uses]
        for each in worths(rule_set(*rules)[1], usage)
    }


def test_each_use_belongs_to_the_rule_that_decides() -> None:
    """The nearest one, by protocol and port. What leads to an address is by whichever protocol it is spoken."""
    usage = replace(
        EMPTY,
        uses=(
            use("a.cdn.test"),
            use("b.cdn.test"),
            use("cdn.test"),
            use("b.cdn.test", "http", 80),
            use("db.test", "tcp", 5432),
            use("db.test", "udp", 5432),
            use("db.test"),
            use("10-1-2-1.lab.test", "tcp", 22),
            use("host.docker.internal", "tcp", 5000),
            use("at.test", "tcp", 443),
            use("no.cdn.test"),
            use("gone.test"),
        ),
    )
    assert worth_of(
        usage,
        ".cdn.test",
        "b.cdn.test",
        {"dst": "no.cdn.test", "action": "deny"},
        {"dst": "cdn.test", "proto": "http"},
        {"dst": "db.test", "proto": "tcp", "port": 5432},
        {"dst": "db.test", "proto": "udp", "port": 5432},
        "db.test",
        {"dst": "10.1.2.0/30", "as": "lab.test", "proto": "ssh", "allow_private": True},
        {"dst": "host", "proto": "tcp", "port": 5000},
        {"dst": "10.9.9.9", "as": "at.test", "allow_private": True},
        {"dst": "i.test", "path_rules": [{"path": "/v1"}]},
    ) == {
        "https .cdn.test:443": ["https a.cdn.test", "https cdn.test"],
        "https b.cdn.test:443": ["https b.cdn.test"],
        "http cdn.test:80": [],
        "tcp db.test:5432": ["tcp db.test"],
        "udp db.test:5432": ["udp db.test"],
        "https db.test:443": ["https db.test"],
        "ssh lab.test:22 at 10.1.2.0/30 private": ["tcp 10-1-2-1.lab.test"],
        "tcp host.docker.internal:5000 at host": ["tcp host.docker.internal"],
        "https at.test:443 at 10.9.9.9 private": ["tcp at.test"],
        "https i.test:443 inspected (/v1, deny others)": [],
    }


@given(rule_sets(20), st.lists(st.sampled_from([*"abcd"]), max_size=4), st.data())
def test_no_use_is_lost_or_counted_twice(rules: Any, labels: list[str], data: st.DataObject) -> None:  # noqa: ANN401
    """What rules allow of the uses belongs to one rule each, and what they refuse to none."""
    names = [rule.destination.name for rule in rules.rules] or ["x.test"]
    uses = tuple(
        replace(use(".".join([*labels[:number], data.draw(st.sampled_from(names))])), protocol=protocol, port=port)
        for number in range(3)
        for protocol in ("https", "http", "tcp", "udp")
        for port in (80, 443, 8080)
    )
    known = replace(EMPTY, uses=tuple(dict.fromkeys(uses)))
    policy = Policy(rules.at(NOW))
    allowed = [each for each in known.uses if policy.decide(each.name, Protocol(each.protocol), each.port).allowed]
    found = [each for worth in worths(rules, known) for each in worth.uses]
    assert sorted(map(repr, found)) == sorted(map(repr, allowed))


def test_names_below_a_subtree_count_for_its_rule() -> None:
    """By protocol and port, whatever other rules are there now; for the next wider rule if it is gone."""
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
    assert {rule: uses for rule, uses in worth_of(usage, *rules).items() if uses} == {
        "https .cdn.test:443": ["https .cdn.test"],
        "http .cdn.test:80": ["http .cdn.test"],
        "https .wide.test:443": ["https .in.wide.test"],
    }


def test_both_envoys_while_one_is_replaced() -> None:
    """What each knows is added, unless the new one has inherited it already."""
    old = replace(EMPTY, identity="old", uses=(use("a.test"),), lost=1, open={"443": 1})
    new = Usage("new", NOW - 10, NOW + 1, (use("a.test", last=NOW + 1), use("b.test")), open={"443": 2})
    both = together([old, new])
    of_a, of_b = worths(rule_set("a.test", "b.test")[1], both)
    assert (of_a.connections, of_a.last, of_b.connections, of_b.last) == (2, NOW + 1, 1, NOW)
    assert (both.since, both.lost, both.open) == (NOW - 1000, 1, {"443": 3})
    heir = replace(new, inherited=frozenset({"old"}))
    assert together([old, heir]) == heir
