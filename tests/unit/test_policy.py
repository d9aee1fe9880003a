"""The policy: the deciding rule, and equal results from every walk over the tree and `decide`."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from clawker_fw.rules.policy import Policy, PolicyDecision
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from devkit.stacks import rule_set
from devkit.strategies import CONNECTIONS, names_near, rule_sets

RULES = (
    "a.test",
    ".wild.test",
    ".b.wild.test",
    "c.b.wild.test",
    {"dst": ".wild.test", "proto": "http"},
    {"dst": "no.wild.test", "action": "deny"},
    {"dst": ".no.wild.test", "action": "deny", "proto": "http"},
    {"dst": "yes.no.wild.test", "proto": "http"},
    {"dst": ".port.wild.test", "action": "deny", "port": 443},
    "both.test",
    {"dst": "both.test", "action": "deny", "proto": "https"},
    {"dst": ".gone.wild.test", "action": "deny"},
    {"dst": ".back.gone.wild.test"},
    {"dst": ".gone.wild.test", "proto": "http", "port": 8080},
)


@pytest.mark.parametrize(
    ("name", "protocol", "port", "decided_by"),
    [
        ("a.test", Protocol.HTTPS, 443, "a.test"),
        ("a.test", Protocol.HTTP, 80, Reason.WRONG_PORT),
        ("a.test", Protocol.HTTPS, 8443, Reason.WRONG_PORT),
        ("wild.test", Protocol.HTTPS, 443, ".wild.test"),
        ("x.y.z.wild.test", Protocol.HTTPS, 443, ".wild.test"),
        ("b.wild.test", Protocol.HTTPS, 443, ".b.wild.test"),
        ("c.b.wild.test", Protocol.HTTPS, 443, "c.b.wild.test"),
        ("notwild.test", Protocol.HTTPS, 443, Reason.NO_RULE),
        ("no.wild.test", Protocol.HTTPS, 443, Reason.DENIED),
        ("x.no.wild.test", Protocol.HTTPS, 443, ".wild.test"),
        ("x.no.wild.test", Protocol.HTTP, 80, Reason.DENIED),
        ("yes.no.wild.test", Protocol.HTTP, 80, "yes.no.wild.test"),
        ("port.wild.test", Protocol.HTTPS, 443, Reason.DENIED),
        ("x.port.wild.test", Protocol.HTTP, 80, ".wild.test"),
        ("both.test", Protocol.HTTPS, 443, Reason.DENIED),
        ("both.test", Protocol.HTTP, 80, Reason.NO_RULE),
        ("gone.wild.test", Protocol.HTTP, 8080, Reason.DENIED),
        ("back.gone.wild.test", Protocol.HTTPS, 443, ".back.gone.wild.test"),
        ("back.gone.wild.test", Protocol.HTTP, 80, Reason.DENIED),
    ],
)
def test_the_most_specific_name_decides(
    name: str, protocol: Protocol, port: int, decided_by: str | Reason
) -> None:
    """The exact name decides first, then the nearest subtree; at the same name, deny rules come first."""
    assert _told(Policy(rule_set(*RULES)[1]).decide(name, protocol, port)) == decided_by


def _told(decision: PolicyDecision) -> str | Reason:
    return decision.reason or str(decision.rule and decision.rule.destination)


def test_what_is_forwarded_as_it_is_may_be_anything() -> None:
    """TCP rules and named addresses forward any protocol, also TLS and HTTP."""
    rules = ({"dst": "a.test", "proto": "tcp", "port": 8443}, {"dst": "192.0.2.1", "as": "b.test"}, ".c.test")
    policy = Policy(rule_set(*rules, {"dst": "d.c.test", "proto": "ssh"})[1])
    for protocol in set(Protocol) - {Protocol.UDP}:
        assert policy.decide("a.test", protocol, 8443).allowed
        assert policy.decide("b.test", protocol, 443).allowed
        assert policy.decide("a.test", protocol, 443).reason is Reason.WRONG_PORT
    assert policy.decide("d.c.test", Protocol.HTTPS, 443).allowed
    assert sorted(policy.opaque) == ["a.test", "b.test", "d.c.test"]


def test_udp_is_apart_from_everything_else() -> None:
    """Allow rules are for connections or for datagrams, never both; deny rules may cover both."""
    policy = Policy(
        rule_set(
            "a.test",
            {"dst": "a.test", "proto": "udp", "port": "443-445"},
            {"dst": "a.test", "proto": "udp", "port": 444, "action": "deny"},
            {"dst": "b.test", "proto": "tcp", "port": 53},
            {"dst": "192.0.2.1", "as": "c.test", "proto": "udp", "port": 53},
            {"dst": "d.test", "proto": "udp", "port": 53},
            {"dst": "d.test", "action": "deny", "port": 53},
        )[1]
    )
    assert _told(policy.decide("a.test", Protocol.UDP, 443)) == "a.test"
    assert _told(policy.decide("a.test", Protocol.HTTPS, 443)) == "a.test"
    assert policy.decide("a.test", Protocol.UDP, 444).reason is Reason.DENIED
    assert policy.decide("a.test", Protocol.TCP, 445).reason is Reason.WRONG_PORT
    assert policy.decide("b.test", Protocol.UDP, 53).reason is Reason.WRONG_PORT
    assert policy.decide("c.test", Protocol.TCP, 53).reason is Reason.WRONG_PORT
    assert policy.decide("c.test", Protocol.UDP, 53).allowed
    assert not policy.resolves("d.test")
    assert sorted(policy.opaque) == ["a.test", "b.test", "c.test"]


@settings(deadline=None)
@given(rule_sets())
def test_what_is_allowed_resolves(rules: RuleSet) -> None:
    """The resolver answers exactly the names that have something allowed."""
    policy = Policy(rules)
    for name in names_near(rules):
        allowed = any(policy.decide(name, protocol, port).allowed for protocol, port in CONNECTIONS)
        assert policy.resolves(name) == allowed


@settings(deadline=None)
@given(rule_sets())
def test_a_name_resolves_exactly_as_long_as_anything_is_allowed(rules: RuleSet) -> None:
    """At any time, the list answers the names allowed by rules that have not expired."""
    ending = RuleSet.of(
        each if each.denies else replace(each, until=(len(each.destination.name) + each.ports[0]) % 4 or None)
        for each in rules.rules
    )
    policy = Policy(ending)
    for now in range(4):
        then = Policy(ending.at(now))
        for name in names_near(rules):
            scope = policy.at(name)
            answered = scope.resolves and (scope.until is None or now < scope.until)
            assert answered == then.resolves(name), (name, now)


def test_what_a_rule_for_an_address_forwards_can_be_denied_by_its_protocol() -> None:
    """Forwarded traffic shows no protocol, so a deny rule is compared with the allow rule's protocol."""
    host = {"dst": "192.0.2.4", "as": "web.test"}
    for deny, allowed in (({}, False), ({"proto": "https"}, False), ({"proto": "http"}, True)):
        policy = Policy(rule_set(host, {"dst": "web.test", "action": "deny", **deny})[1])
        for protocol in (Protocol.HTTPS, Protocol.TCP):
            assert policy.decide("web.test", protocol, 443).allowed is allowed
        assert policy.resolves("web.test") is policy.at("web.test").resolves is allowed
        assert (policy.opaque == {"web.test"}) is allowed
