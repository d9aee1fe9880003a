"""Entries of `rules`: spellings, defaults, expiry, and refusals with reasons."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from clawker_fw.rules.rule import Protocol, Rule, RuleAction
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.rules.until import parse_until_from
from clawker_fw.settings.document import parse

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


def rule(text: str) -> Rule:
    return RuleEntry.model_validate(parse(text, "")[0]).rule()


@pytest.mark.parametrize(
    ("text", "protocol", "port"),
    [
        ("{dst: a.test}", Protocol.HTTPS, 443),
        ("{dst: a.test, proto: wss, port: 8443}", Protocol.HTTPS, 8443),
        ("{dst: a.test, proto: ws}", Protocol.HTTP, 80),
        ("{dst: a.test, proto: tcp, port: 5432}", Protocol.TCP, 5432),
        ("{dst: a.test, action: deny}", None, None),
        ("{dst: a.test, action: deny, proto: ws}", Protocol.HTTP, None),
        ("{dst: a.test, action: deny, port: 443}", None, 443),
    ],
)
def test_what_is_left_out(text: str, protocol: Protocol | None, port: int | None) -> None:
    """Allow rules get defaults; deny rules cover everything that they leave out."""
    found = rule(text)
    assert (found.protocol, found.port) == (protocol, port)
    assert found.denies == ("deny" in text)


@pytest.mark.parametrize("text", ["2027-01-01T00:00:00Z", "'2027-01-01T01:00:00+01:00'", "2027-01-01 00:00:00 +0"])
def test_an_end_is_a_time_with_its_zone(text: str) -> None:
    """An expiry may be YAML's own time or text."""
    assert rule(f"{{dst: a.test, until: {text}}}").until == NEW_YEAR.timestamp()


@pytest.mark.parametrize("text", ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T18:59:59-05:00"])
def test_the_first_and_the_last_end_are_ends(text: str) -> None:
    """The earliest and the latest expiry survive a round trip through a rule's text."""
    found = rule(f"{{dst: a.test, until: {text}}}")
    assert found.until is not None
    written = str(found).partition(" until ")[2]
    assert rule(f"{{dst: a.test, until: {written}}}").until == found.until


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{dst: a.test, until: 2027-01-01T00:00:00}", "has no time zone"),
        ("{dst: a.test, until: 2027-01-01}", "is a day without a time"),
        ("{dst: a.test, until: 30m}", "is a time from now"),
        ("{dst: a.test, until: 5}", "is not a time"),
        ("{dst: a.test, until: 0001-01-01T00:00:00+05:00}", "must be in the years 1970 to 9999"),
        ("{dst: a.test, until: 9999-12-31T23:59:59-05:00}", "must be in the years 1970 to 9999"),
        ("{dst: a.test, proto: udp, port: 1-101}", "1-101 are too many ports; 100 are the most"),
        ("{dst: a.test, proto: gopher}", "'https', 'http', 'tcp', 'ssh' or 'udp'"),
        ("{dst: a.test, proto: tcp}", "needs a `port`"),
        ("{dst: .a.test, proto: ssh}", "needs an exact name"),
        ("{dst: a.test, port: 1-2}", "several ports are for tcp, ssh and udp"),
        ("{dst: a.test, proto: tcp, port: 2-1}", "is not a port"),
        ("{dst: a.test, port: true}", "is not a port"),
        ("{dst: a.test, as: b.test}", "a name needs none"),
        ("{dst: 192.0.2.1}", "is an address, and agents use names: add `as`"),
        ("{dst: 192.0.2.1, as: .b.test}", "`as` is one name"),
        ("{dst: 192.0.2.0/28, as: b.test}", "is a network; write a rule with `as` for each of its addresses"),
        ("{dst: 10.1.2.3, as: b.test}", "is a private address; add `allow_private: true`"),
        ("{dst: '::1', as: b.test}", "is an address"),
        ("{dst: 192.0.2.1, as: com}", "is a public suffix"),
        ("{dst: 169.254.169.254, as: b.test, allow_private: true}", "can never be reached"),
        ("{dst: 192.0.2.1, as: b.test, action: deny}", "a rule that denies has a name"),
        ("{dst: a.test, action: deny, allow_private: true}", "a rule that denies has a name"),
        ("{dst: host, port: 5432}", "services are allowed one by one: add `proto` and `port`"),
        ("{dst: host, proto: tcp, port: 2375}", "who reaches it is root on the machine; .* add `force: true`"),
        ("{dst: host, proto: tcp, port: 2000-3000, as: b.test}", "who reaches it is root on the machine"),
        ("{dst: host, action: deny}", "to deny it, name `host.docker.internal` or its `as`"),
        ("{dst: host, proto: https, port: 443, path_rules: [{path: /a}]}", "`path_rules` is for names"),
        ("{dst: a.test, action: block}", "'allow' or 'deny'"),
    ],
)
def test_what_is_refused(text: str, complaint: str) -> None:
    """Each invalid entry is refused with its reason."""
    with pytest.raises(ValidationError, match=complaint):
        rule(text)


def test_several_ports() -> None:
    """TCP rules may cover a range of ports; deny rules any range."""
    found = rule("{dst: a.test, proto: tcp, port: 8000-8002}")
    assert found.keys == tuple((Protocol.TCP, port) for port in (8000, 8001, 8002))
    assert str(found) == "tcp a.test:8000-8002"
    assert rule("{dst: a.test, proto: udp, port: 1-100}").keys[-1] == (Protocol.UDP, 100)
    denying = rule("{dst: .a.test, action: deny, port: 8000-9999}")
    assert denying.matches(Protocol.TCP, 8500)
    assert not denying.matches(Protocol.TCP, 7999)


@pytest.mark.parametrize(("more", "name"), [("", "host.docker.internal"), (", as: db.test", "db.test")])
def test_a_service_of_the_engines_machine(more: str, name: str) -> None:
    """A service of the Docker host has a name, a protocol and a port, and its traffic is forwarded unchanged."""
    found = rule(f"{{dst: host, proto: http, port: 8080{more}}}")
    assert str(found) == f"http {name}:8080 at host"
    assert found.keys == ((Protocol.TCP, 8080),)
    assert found.leads_to(name, "192.0.2.1") == "192.0.2.1"
    assert found == rule(f"{{dst: HOST, proto: http, port: 8080, allow_private: true{more}}}")
    assert rule("{dst: a.host, proto: tcp, port: 1}").leads_to("a.host", "192.0.2.1") == "a.host"
    assert rule(f"{{dst: host, proto: tcp, port: 2375{more}, force: true}}").ports == range(2375, 2376)


def test_an_address_has_a_name() -> None:
    """Agents use the name of an address, and traffic of any protocol is forwarded unchanged."""
    found = rule("{dst: 192.0.2.1, as: DB.test., proto: tcp, port: 5432}")
    assert (str(found.destination), found.host, found.keys) == ("db.test", "192.0.2.1", ((Protocol.TCP, 5432),))
    assert str(found) == "tcp db.test:5432 at 192.0.2.1"
    plain = rule("{dst: 10.1.2.3, as: web.test, allow_private: true}")
    assert (plain.keys, str(plain)) == (((Protocol.TCP, 443),), "https web.test:443 at 10.1.2.3 private")
    datagrams = rule("{dst: 192.0.2.1, as: db.test, proto: udp, port: 53}")
    assert (datagrams.keys, str(datagrams)) == (((Protocol.UDP, 53),), "udp db.test:53 at 192.0.2.1")
    several = rule("{dst: 192.0.2.1, as: web.test, port: 8000-8001}")
    assert several.keys == ((Protocol.TCP, 8000), (Protocol.TCP, 8001))


def test_a_public_suffix_can_be_denied() -> None:
    """Only allowing a public suffix is probably an error."""
    assert rule("{dst: .com, action: deny}").action is RuleAction.DENY


def test_an_end_from_now() -> None:
    """On the command line, a duration counts from now. A past time is refused."""
    for text, seconds in {"90s": 90, "30m": 1800, "2h": 7200, "1d": 86400}.items():
        assert parse_until_from(text, NEW_YEAR) == NEW_YEAR + timedelta(seconds=seconds)
    assert parse_until_from("2027-01-01T00:00:01Z", NEW_YEAR) == NEW_YEAR + timedelta(seconds=1)
    for text in ("2026-12-31T00:00:00Z", "0s", "-5m", "later"):
        with pytest.raises(ValueError, match=r"has passed|is not a time"):
            parse_until_from(text, NEW_YEAR)
