"""The zone generator against the rules of DNS: what a resolver answers from the records we print."""

from ipaddress import IPv4Address

from hypothesis import given

from clawker_fw.rules.matcher import Matcher
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack import coredns, zone
from clawker_fw.stack.container import ZONE
from clawker_fw.stack.release import Release
from devkit.stacks import rule_set
from devkit.strategies import names_near, rule_sets

ENVOY = IPv4Address("10.213.8.10")


def answers(owners: tuple[str, ...], name: str) -> bool:
    """Whether a complete zone with these owners has an address for a name (RFC 4592, section 3.3)."""
    if name in owners:
        return True
    existing = {owner.partition(".")[2] if owner.startswith("*.") else owner for owner in owners}
    existing |= {ancestor for owner in owners for ancestor in _ancestors(owner)}
    if name in existing:
        return False  # an empty non-terminal, or one with other data: no wildcard applies
    closest = next((ancestor for ancestor in _ancestors(name) if ancestor in existing), "")
    return f"*.{closest}" in owners


def _ancestors(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[start:]) for start in range(1, len(labels))]


@given(rule_sets())
def test_the_zone_answers_exactly_what_the_matcher_resolves(rules: RuleSet) -> None:
    """Whatever rules stand beside each other, a name has an address if and only if a rule is for it."""
    owners = zone.allowed_owners(rules)
    matcher = Matcher(rules)
    for name in names_near(rules):
        assert answers(owners, name) == matcher.resolves(name), name


def test_a_name_below_a_wildcard_does_not_hide_it() -> None:
    """The trap of RFC 4592: `x.a.b.wild.test` beside `.wild.test` must not make `b.wild.test` disappear."""
    _, rules = rule_set(".wild.test", {"dst": "x.a.b.wild.test", "port": 8443}, ".b.wild.test")
    owners = zone.allowed_owners(rules)
    assert answers(owners, "b.wild.test")
    assert answers(owners, "q.b.wild.test")
    assert answers(owners, "q.a.b.wild.test")


def test_the_longest_names_have_no_wildcard_below_them() -> None:
    """Below a name of 252 characters there is no room for `*.`, and nothing that could be asked for."""
    name = ".".join(["a" * 63] * 3 + ["b" * 58 + ".c"])
    assert len(name) == 252
    _, rules = rule_set(f".{name}")
    assert zone.allowed_owners(rules) == (name,)


def test_start_of_authority_is_first_and_version_last(release: Release) -> None:
    """CoreDNS looks at the first record to see a change; the last one proves that all were read."""
    _, rules = rule_set("a.test")
    files, version = coredns.hot(release, rules, ENVOY)
    records = [line for line in files[ZONE].decode().splitlines() if not line.startswith(";")]
    assert " IN SOA " in records[0]
    assert records[-1] == f'version.clawker-fw.invalid. 1 IN TXT "{version}"'
    assert records[-2] == "a.test. 1 IN A 10.213.8.10"


def test_another_content_has_another_serial(release: Release) -> None:
    """The same serial with other content would be ignored silently."""
    _, one = rule_set("a.test")
    _, two = rule_set("b.test")
    versions = {
        coredns.hot(release, rules, address)[1]
        for rules in (one, two)
        for address in (ENVOY, IPv4Address("10.213.8.11"))
    }
    assert len({zone.serial(version) for version in versions}) == 4
    assert zone.serial("00000000ffffffff") != 0
