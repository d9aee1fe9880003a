"""Explaining decisions: the deciding rule, near misses, and a remedy."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.diagnose.explanation import Difference, Explainer, Explanation
from clawker_fw.diagnose.remedies import remedy_of
from clawker_fw.model.trials import FoundAddress, Lookup
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.rules.target import Target, parse_target
from devkit.strategies import PORTS, names, rules

NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
PAST, FUTURE = "2026-05-01T00:00:00Z", "2126-07-01T00:00:00Z"


def rule_set(*entries: str | Mapping[str, Any]) -> RuleSet:
    """Return rules whose places are their positions."""
    written = [{"dst": entry} if isinstance(entry, str) else entry for entry in entries]
    return RuleSet.of(
        RuleEntry.model_validate(entry).rule(f"line {position}") for position, entry in enumerate(written, 1)
    )


def command_of(explained: Explanation) -> str:
    found = remedy_of(explained)
    return found.command if found else ""


RULES = rule_set(
    "api.example.com",
    ".example.org",
    {"dst": "x.example.org", "action": "deny"},
    {"dst": ".y.example.org", "action": "deny", "proto": "https"},
    {"dst": "p.example.net", "port": 8443},
    {"dst": "p.example.net", "proto": "http"},
    {"dst": "old.example.net", "until": PAST},
    {"dst": "soon.example.net", "until": FUTURE},
    {"dst": "y.example.org", "port": 8443},
    {"dst": ".gone.example.org", "action": "deny", "until": PAST},
)

E = Difference


@pytest.mark.parametrize(
    ("asked", "reason", "place", "others", "command"),
    [
        ("a.example.org", None, "line 2", [], ""),
        ("gone.example.org", None, "line 2", [], ""),
        ("x.example.org", "denied", "line 3", [("line 2", E.OVERRULED)], ""),
        ("a.y.example.org", "denied", "line 4", [("line 2", E.OVERRULED)], "https://a.y.example.org"),
        (
            "y.example.org",
            "denied",
            "line 4",
            [("line 2", E.OVERRULED), ("line 9", E.OTHER_PORT)],
            "https://y.example.org",
        ),
        (
            "p.example.net",
            "wrong-port",
            None,
            [("line 5", E.OTHER_PORT), ("line 6", E.OTHER_PROTOCOL)],
            "https://p.example.net",
        ),
        ("old.example.net", "expired", "line 7", [], "https://old.example.net --until 8h"),
        ("old.example.net:444", "no-rule", None, [("line 7", E.ENDED)], "https://old.example.net:444"),
        ("a.api.example.com", "no-rule", None, [("line 1", E.NAME_ALONE)], "https://a.api.example.com"),
        ("apl.example.com", "no-rule", None, [("line 1", E.OTHER_NAME)], "https://apl.example.com"),
        ("example.com", "no-rule", None, [("line 1", E.BELOW)], "https://example.com"),
        ("co.uk", "no-rule", None, [], "https://co.uk --force"),
        ("192.0.2.1", "bad-name", None, [], ""),
    ],
)
def test_explanations(
    asked: str, reason: str | None, place: str | None, others: list[tuple[str, Difference]], command: str
) -> None:
    """The reason, the deciding rule, the nearest other rules, and the command that would allow it."""
    found = Explainer(RULES, NOW).explain(parse_target(asked))
    assert found.reason == reason
    assert (found.rule.place if found.rule else None) == place
    assert [(each.rule.place, each.difference) for each in found.near] == others
    assert command_of(found) == (f"clawker-fw rules allow {command}" if command else "")


A = Target("a.test", Protocol.HTTPS, 443)
WORLD, OFFICE, LOOPBACK = (
    FoundAddress("198.51.100.7", ()),
    FoundAddress("10.0.0.7", ("guarded",)),
    FoundAddress("127.0.0.1", ("guarded", "exempt")),
)
PRIVATE = {"dst": "a.test", "allow_private": True}
COMMAND = "clawker-fw rules allow https://a.test"
AGAIN, FOR_GOOD = f"Allow it again with `{COMMAND}", ", or for good with `--until never`."
MEANT = f"If this address is meant, allow it with `{COMMAND}"


@pytest.mark.parametrize(
    ("rule", "addresses", "reason", "text"),
    [
        ("a.test", [OFFICE, WORLD], None, ""),
        ("a.test", [], "no-address", ""),
        ("a.test", [OFFICE], "private-address", f"If this address is meant, allow it with `{COMMAND} --private`."),
        (PRIVATE, [OFFICE], None, ""),
        (PRIVATE, [LOOPBACK], "private-address", "No rule can allow it: no rule may reach any of its addresses."),
        ("b.test", [LOOPBACK], "no-rule", "No rule can allow it: no rule may reach any of its addresses."),
        ({**PRIVATE, "until": PAST}, [WORLD], "expired", f"{AGAIN} --private --until 8h`{FOR_GOOD}"),
        (
            {"dst": ".test", "force": True, "until": FUTURE},
            [OFFICE],
            "private-address",
            f"{MEANT} --private --until {FUTURE}`.",
        ),
    ],
)
def test_addresses(
    rule: str | Mapping[str, Any], addresses: list[FoundAddress], reason: str | None, text: str
) -> None:
    """A connection is refused if the rule may reach none of the addresses; one suffices."""
    entry = {"dst": rule, "force": True} if isinstance(rule, str) else rule
    found = (
        Explainer(rule_set(entry), NOW)
        .explain(A)
        .with_addresses(Lookup(tuple(addresses), "" if addresses else "none"))
    )
    remedy = remedy_of(found)
    assert (found.reason, remedy.text if remedy else "") == (reason, text)


@st.composite
def _ending(draw: st.DrawFn) -> RuleSet:
    drawn = draw(st.lists(st.tuples(rules(), st.sampled_from((None, 1, 3))), max_size=12))
    return RuleSet.of(
        replace(rule, until=until, place=str(position)) for position, (rule, until) in enumerate(drawn)
    )


@given(_ending(), names(), st.sampled_from(Protocol), st.sampled_from(PORTS))
def test_an_explanation_agrees_with_the_policy(every: RuleSet, name: str, protocol: Protocol, port: int) -> None:
    """The decision equals the policy's. Only without a deciding rule may an expired rule be the reason."""
    found = Explainer(every, 2).explain(Target(name, protocol, port))
    decided = Policy(every.at(2)).decide(name, protocol, port)
    assert found.allowed == decided.allowed
    if found.reason is Reason.EXPIRED:
        assert decided.reason in {Reason.NO_RULE, Reason.WRONG_PORT}
        assert found.rule is not None
        assert found.rule.until == 1
        assert found.rule.matches(protocol, port)
    else:
        assert (found.rule, found.reason) == (decided.rule, decided.reason)
        assert found.rule is None or found.rule.until != 1
    assert all(each.rule != found.rule for each in found.near)
    ended = {each.rule for each in found.near if each.difference is Difference.ENDED}
    assert all((each.rule.until == 1) == (each.rule in ended) for each in found.near)


@pytest.mark.parametrize(
    ("rule", "asked", "command"),
    [
        ({}, "tcp://host.docker.internal:2375", "tcp://host:2375 --force"),
        ({"as": "db.test"}, "udp://db.test:53", "udp://host:53 --as db.test"),
        ({"as": "db.test"}, "udp://dc.test:53", "udp://dc.test:53"),
        ({"until": PAST}, "tcp://host.docker.internal:5432", "tcp://host:5432 --until 8h"),
    ],
)
def test_another_service_of_the_engines_machine(rule: Mapping[str, Any], asked: str, command: str) -> None:
    """The suggested rule leads to the Docker host, as the existing rule does."""
    rules = rule_set({"dst": "host", "proto": "tcp", "port": 5432, **rule})
    found = Explainer(rules, NOW).explain(parse_target(asked))
    assert command_of(found) == f"clawker-fw rules allow {command}"
    name = rules.rules[0].destination.name
    allowed = Explainer(rules, 0).explain(Target(name, Protocol.TCP, 5432))
    assert allowed.leads_to("192.0.2.9") == "192.0.2.9"
