"""Why the rules allow or refuse a connection: the rule that decides, those that nearly do, and what to do."""

import itertools
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from clawker_fw.diagnose.explanation import Difference, Explainer, Explanation, Remedy
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.cli import rule_words
from clawker_fw.model import FoundAddress, Lookup
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.rules.target import Request, Target, parse_target
from clawker_fw.settings.edit import edits
from clawker_fw.settings.edit.edits import Addition, Written
from clawker_fw.settings.edit.splice import Edit, spliced
from devkit.strategies import PORTS, names, rules

NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
PAST, FUTURE = "2026-05-01T00:00:00Z", "2126-07-01T00:00:00Z"


def rule_set(*entries: str | Mapping[str, Any]) -> RuleSet:
    """Return rules whose places are their positions."""
    written = [{"dst": entry} if isinstance(entry, str) else entry for entry in entries]
    return RuleSet.of(
        RuleEntry.model_validate(entry).rule(f"line {position}") for position, entry in enumerate(written, 1)
    )


def near(explained: Explanation) -> list[tuple[str, Difference]]:
    """Return the places of the rules that nearly decide, and why they don't."""
    return [(each.rule.place, each.difference) for each in explained.near]


def remedy(explained: Explanation) -> str:
    """Return what to do."""
    return explained.remedy.text if explained.remedy else ""


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


def explain(
    rules: RuleSet, now: float, target: Target, variable: str = "", request: Request | None = None
) -> Explanation:
    """Explain what happens to a connection, or to a request in it."""
    return Explainer(rules, now, variable).explain(target, request)


@pytest.mark.parametrize(
    ("asked", "reason", "place", "others", "command"),
    [
        ("api.example.com", None, "line 1", [], ""),
        ("a.example.org", None, "line 2", [], ""),
        ("soon.example.net", None, "line 8", [], ""),
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
        ("y.example.org:8443", None, "line 9", [("line 4", E.OVERRULED)], ""),
        (
            "p.example.net",
            "wrong-port",
            None,
            [("line 5", E.OTHER_PORT), ("line 6", E.OTHER_PROTOCOL)],
            "https://p.example.net",
        ),
        (
            "http://a.example.org:8080",
            "wrong-port",
            None,
            [("line 2", E.OTHER_PROTOCOL)],
            "http://a.example.org:8080",
        ),
        ("old.example.net", "expired", "line 7", [], "https://old.example.net --until 8h"),
        ("old.example.net:444", "no-rule", None, [("line 7", E.ENDED)], "https://old.example.net:444"),
        ("a.api.example.com", "no-rule", None, [("line 1", E.NAME_ALONE)], "https://a.api.example.com"),
        ("apl.example.com", "no-rule", None, [("line 1", E.OTHER_NAME)], "https://apl.example.com"),
        ("a.exmaple.org", "no-rule", None, [("line 2", E.OTHER_NAME)], "https://a.exmaple.org"),
        ("example.com", "no-rule", None, [("line 1", E.BELOW)], "https://example.com"),
        ("other.test", "no-rule", None, [], "https://other.test"),
        ("github.io", "no-rule", None, [], "https://github.io"),
        ("co.uk", "no-rule", None, [], "https://co.uk --force"),
        ("192.0.2.1", "bad-name", None, [], ""),
    ],
)
def test_explanations(
    asked: str, reason: str | None, place: str | None, others: list[tuple[str, Difference]], command: str
) -> None:
    """The reason, the rule that decides, the nearest that don't, and the command that would allow it."""
    found = explain(RULES, NOW, parse_target(asked))
    assert found.reason == reason
    assert (found.rule.place if found.rule else None) == place
    assert near(found) == others
    assert (found.remedy.command if found.remedy else "") == (
        f"clawker-fw rules allow {command}" if command else ""
    )


LONGEST = ".".join(["a" * 62] * 3 + ["a" * 59])
"""248 characters."""


@pytest.mark.parametrize("rule", [{}, {"proto": "http"}, {"allow_private": True}])
@pytest.mark.parametrize("more", [2, 3, 5])
def test_a_name_below_a_subtree_may_have_250_characters(rule: Mapping[str, Any], more: int) -> None:
    """Envoy can't look a longer one up, so it is refused; a rule for exactly this name allows it."""
    name = "b" * (more - 1) + "." + LONGEST
    every = rule_set({**rule, "dst": f".{LONGEST.partition('.')[2]}"})
    asked = Target(name, every.rules[0].protocol or Protocol.HTTPS, every.rules[0].port or 0)
    found = explain(every, NOW, asked)
    assert found.rule == every.rules[0]
    if len(name) <= 250:
        assert (found.reason, found.sentence) == (None, "")
        return
    assert found.reason is Reason.NO_ADDRESS
    assert found.sentence == (
        "a rule allows this host, but Envoy looks up names of at most 250 characters below a subtree, "
        f"and this one has {len(name)}"
    )
    for lookup in (Lookup((WORLD,), ""), Lookup((), "none")):
        assert found.with_addresses(lookup).sentence == found.sentence
    private = " --private" if rule.get("allow_private") else ""
    assert remedy(found) == f"Allow it with `clawker-fw rules allow {asked.url}{private}`."
    assert explain(rule_set({**rule, "dst": name}), NOW, asked).allowed


def test_what_to_do_about_a_denial() -> None:
    """A rule that denies exactly this name has to change; to one for names above it there can be exceptions."""
    exact, above = (explain(RULES, NOW, parse_target(name)) for name in ("x.example.org", "a.y.example.org"))
    assert remedy(exact) == "Change or remove the rule that denies it (line 3)."
    assert remedy(above) == (
        "Make an exception with `clawker-fw rules allow https://a.y.example.org`, "
        "or change the rule that denies it (line 4)."
    )


def test_the_nearest_are_few() -> None:
    """Of many rules that have something to do with a name, the nearest five are shown."""
    found = explain(rule_set(*(f"n{number}.a.test" for number in range(9)), {"dst": "a.test", "port": 1}), NOW, A)
    assert [each.difference for each in found.near] == [Difference.OTHER_PORT]
    below = explain(rule_set(*(f"n{number}.a.test" for number in range(9))), NOW, A)
    assert [each.difference for each in below.near] == [Difference.BELOW] * 5


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
        ("a.test", [WORLD], None, ""),
        ("a.test", [OFFICE, WORLD], None, ""),
        ("a.test", [], "no-address", ""),
        ("a.test", [OFFICE], "private-address", f"If this address is meant, allow it with `{COMMAND} --private`."),
        (".test.test", [OFFICE], "no-rule", f"Allow it with `{COMMAND} --private`."),
        (PRIVATE, [OFFICE], None, ""),
        (PRIVATE, [LOOPBACK], "private-address", "No rule can allow it: no rule may reach any of its addresses."),
        ("b.test", [LOOPBACK], "no-rule", "No rule can allow it: no rule may reach any of its addresses."),
        ("b.test", [], "no-rule", f"Allow it with `{COMMAND}`."),
        ({**PRIVATE, "until": PAST}, [WORLD], "expired", f"{AGAIN} --private --until 8h`{FOR_GOOD}"),
        ({"dst": "a.test", "until": FUTURE}, [OFFICE], "private-address", f"{MEANT} --private`."),
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
    """What a rule allows is refused if the rule may reach none of the addresses, and one is enough."""
    entry = {"dst": rule, "force": True} if isinstance(rule, str) else rule
    found = explain(rule_set(entry), NOW, A).with_addresses(Lookup(tuple(addresses), "" if addresses else "none"))
    assert (found.reason, remedy(found)) == (reason, text)


@st.composite
def _ending(draw: st.DrawFn) -> RuleSet:
    """Return rules, some of which have ended."""
    drawn = draw(st.lists(st.tuples(rules(), st.sampled_from((None, 1, 3))), max_size=12))
    return RuleSet.of(
        replace(rule, until=until, place=str(position)) for position, (rule, until) in enumerate(drawn)
    )


@given(_ending(), names(), st.sampled_from(Protocol), st.sampled_from(PORTS))
def test_an_explanation_agrees_with_the_policy(every: RuleSet, name: str, protocol: Protocol, port: int) -> None:
    """The decision is the policy's; only where nothing decides, a rule that has ended may be the reason."""
    found = explain(every, 2, Target(name, protocol, port))
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


def test_a_name_that_stands_for_an_address() -> None:
    """Whatever is spoken on the rule's port is allowed, and the address is what the name leads to."""
    every = rule_set({"dst": "198.51.100.7", "as": "a.test", "port": 8443}, "b.test")
    for protocol in set(Protocol) - {Protocol.UDP}:
        found = explain(every, 0, Target("a.test", protocol, 8443))
        assert found.allowed
        assert found.leads_to("") == "198.51.100.7"
    assert explain(every, 0, Target("b.test", Protocol.HTTPS, 443)).leads_to("") == "b.test"


@pytest.mark.parametrize(
    ("rule", "asked", "command"),
    [
        ({}, "https://host.docker.internal", "https://host:443"),
        ({}, "tcp://host.docker.internal:2375", "tcp://host:2375 --force"),
        ({"as": "db.test"}, "udp://db.test:53", "udp://host:53 --as db.test"),
        ({"as": "db.test"}, "udp://dc.test:53", "udp://dc.test:53"),
        ({"until": PAST}, "tcp://host.docker.internal:5432", "tcp://host:5432 --until 8h"),
    ],
)
def test_another_service_of_the_engines_machine(rule: Mapping[str, Any], asked: str, command: str) -> None:
    """What is advised leads to the machine, as the rule that is there; and the machine is where that one leads."""
    rules = rule_set({"dst": "host", "proto": "tcp", "port": 5432, **rule})
    found = explain(rules, NOW, parse_target(asked))
    assert found.remedy is not None
    assert found.remedy.command == f"clawker-fw rules allow {command}"
    name = rules.rules[0].destination.name
    allowed = explain(rules, 0, Target(name, Protocol.TCP, 5432))
    assert allowed.leads_to("192.0.2.9") == "192.0.2.9"


LAB = rule_set(
    {"dst": "192.0.2.0/28", "as": "lab.test", "proto": "ssh"}, {"dst": "a.lab.test", "proto": "http"}, "b.test"
)


def test_a_name_of_an_address_in_a_network() -> None:
    """The rule is told once, as it is written, and the name leads to its own address."""
    found = explain(LAB, NOW, Target("192-0-2-5.lab.test", Protocol.SSH, 22))
    assert (found.allowed, found.leads_to("")) == (True, "192.0.2.5")
    assert str(found.rule) == "ssh lab.test:22 at 192.0.2.0/28"
    other_port = explain(LAB, NOW, Target("192-0-2-5.lab.test", Protocol.SSH, 23))
    assert near(other_port) == [("line 1", E.OTHER_PORT)]
    assert other_port.remedy is not None
    assert other_port.remedy.command == "clawker-fw rules allow ssh://192-0-2-5.lab.test:23"


@pytest.mark.parametrize("name", ["192-0-2-16.lab.test", "lab.test", "10-0-0-1.lab.test", "x.192-0-2-5.lab.test"])
def test_a_name_that_is_no_address_of_the_network(name: str) -> None:
    """A rule for the name would lead nowhere: what to do is to use another name, or to change the network."""
    found = explain(LAB, NOW, Target(name, Protocol.SSH, 22))
    assert found.reason is Reason.NO_RULE
    assert ("line 1", E.OTHER_ADDRESS) in near(found)
    assert remedy(found) == (
        "Use the name of one of its addresses, as 192-0-2-0.lab.test, or change the network (line 1)."
    )


@pytest.mark.parametrize(
    ("rule", "asked", "text"),
    [
        (
            "a.test",
            "tcp://a.test:443",
            "First change or remove `https a.test:443` (line 1): the two can't share a port.",
        ),
        (".test.test", "tcp://a.test.test:443", "First change or remove `https .test.test:443` (line 1): the two"),
        (
            {"dst": "a.test", "proto": "http"},
            "tcp://a.test:80",
            "First change or remove `http a.test:80` (line 1)",
        ),
        ({"dst": "a.test", "proto": "http"}, "tcp://a.test:81", "Allow it with"),
        ({"dst": "a.test", "proto": "http"}, "https://a.test:80", "Allow it with"),
        (
            {"dst": "a.test", "proto": "ssh", "until": PAST},
            "https://a.test:22",
            "First change or remove `ssh a.test:22 until 2026-05-01T00:00:00Z` (line 1)",
        ),
    ],
)
def test_a_port_that_another_rule_has(rule: str | Mapping[str, Any], asked: str, text: str) -> None:
    """No command is proposed that would fail because the two rules can't share the port."""
    found = explain(rule_set(rule), NOW, parse_target(asked))
    assert remedy(found).startswith(text)


def after(command: str, there: RuleSet, now: float) -> RuleSet:
    """Return the rules after a command for a settings file that has these."""
    _, _, verb, name, *options = shlex.split(command)
    assert verb == "allow"
    given_options = dict(itertools.pairwise([*options, ""]))
    fields = {
        "action": verb,
        "as": given_options.get("--as"),
        "allow_private": True if "--private" in options else None,
        "force": "--force" in options,
        "until": given_options.get("--until"),
        "note": None,
        "path_rules": rule_words.path_rules(
            [given_options["--path"]] if "--path" in options else None, given_options.get("--methods")
        ),
    }
    text = spliced("", Edit(added=[Addition(rule).fields for rule in there.rules]), "before")
    rules = [Written(rule, position) for position, rule in enumerate(there.rules)]
    edit, _ = edits.add(rules, rule_words.additions([name], None, None, fields), now)
    entries = yaml.safe_load(spliced(text, edit, "after"))["rules"]
    return RuleSet.of(RuleEntry.model_validate(each).rule() for each in entries)


@pytest.mark.parametrize("until", [None, FUTURE])
@pytest.mark.parametrize("rule", ["a.test", ".test"])
def test_what_is_advised_about_a_private_address_ends_no_later(rule: str, until: str | None) -> None:
    """The rule of the command ends when the one does that allows the name without it."""
    every = rule_set({"dst": rule, "force": True, **({"until": until} if until else {})})
    found = explain(every, NOW, A).with_addresses(Lookup((OFFICE,), ""))
    assert found.remedy is not None
    changed = after(found.remedy.command, every, NOW)
    decided = Policy(changed).decide("a.test", Protocol.HTTPS, 443).rule
    assert decided is not None
    assert (decided.allow_private, decided.until) == (True, every.rules[0].until)


def test_rules_that_no_command_can_edit() -> None:
    """The rule to add to the variable is told, as it is written there, with the options that it needs."""
    found = explain(RULES, NOW, parse_target("ssh://no:23"), "VARIABLE")
    assert found.remedy == Remedy(
        'Allow it with `{dst: "no", proto: ssh, port: 23, force: true}` in VARIABLE. '
        "This also allows whatever else is sent over TCP on this port.",
    )
    found = explain(RULES, NOW, parse_target("x.y.example.org"), "VARIABLE")
    assert remedy(found) == (
        "Make an exception with `{dst: x.y.example.org}` in VARIABLE, or change the rule that denies it (line 4)."
    )
