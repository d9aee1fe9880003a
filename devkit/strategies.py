"""Generated rules, and names that are worth testing with them, for property tests."""

import random

from hypothesis import strategies as st

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.rule import Protocol, Rule, RuleAction
from clawker_fw.rules.ruleset import RuleSet

LABELS = ("a", "b", "c", "wild", "_x", "-a--", "x" * 63)
"""Few and short, so that many names are parents, children or siblings of each other."""

PORTS = (80, 443, 8080)
OPAQUE = (
    (Protocol.TCP, 22, None),
    (Protocol.TCP, 9000, 9002),
    (Protocol.UDP, 443, None),
    (Protocol.UDP, 9000, 9001),
)
"""What rules are for that forward everything as it is: the protocol, the first port and the last one."""

AT_ADDRESSES = (*OPAQUE, (Protocol.HTTPS, 8443, None), (Protocol.HTTP, 8081, None))
"""What rules for addresses are for, which forward everything as well."""

NAMED = (Protocol.HTTPS, Protocol.HTTP)

CONNECTIONS = tuple(
    (protocol, port)
    for protocol in Protocol
    for port in sorted({*PORTS, *(first for _, first, _ in AT_ADDRESSES), 9001})
)
"""What an agent may try with a name: a protocol and a port."""


def names() -> st.SearchStrategy[str]:
    above = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3)
    return above.map(lambda labels: ".".join([*labels, "test"]))


def _named(name: str, subtree: bool, protocol: Protocol, port: int) -> Rule:  # noqa: FBT001 - as strategies give it
    """`allow_private` is derived from the name, so that no rules contradict each other."""
    return Rule(Destination(name, subtree), protocol, port, allow_private=len(name) % 2 == 0)


def _forwarding(name: str, what: tuple[Protocol, int, int | None], host: str = "") -> Rule:
    protocol, first, last = what
    destination = Destination(name, subtree=False)
    return Rule(destination, protocol, first, len(name) % 2 == 0, last_port=last, host=host)


def _at_address(name: str, what: tuple[Protocol, int, int | None]) -> Rule:
    return _forwarding(f"at.{name}", what, "192.0.2.9")


def _denying(name: str, subtree: bool, protocol: Protocol | None, port: int | None) -> Rule:  # noqa: FBT001 - likewise
    return Rule(Destination(name, subtree), protocol, port, action=RuleAction.DENY)


def rules() -> st.SearchStrategy[Rule]:
    """Return rules, a third of which deny."""
    allowing = st.builds(_named, names(), st.booleans(), st.sampled_from(NAMED), st.sampled_from(PORTS))
    opaque = st.builds(_forwarding, names(), st.sampled_from(OPAQUE))
    addresses = st.builds(_at_address, names(), st.sampled_from(AT_ADDRESSES))
    denying = st.builds(
        _denying,
        names() | names().map("at.{}".format),
        st.booleans(),
        st.none() | st.sampled_from(Protocol),
        st.none() | st.sampled_from(PORTS),
    )
    return st.one_of(allowing, allowing, opaque, addresses, denying, denying)


def rule_sets(most: int = 12) -> st.SearchStrategy[RuleSet]:
    return st.lists(rules(), max_size=most).map(RuleSet.of)


def random_rules(chosen: random.Random, most: int) -> RuleSet:
    """Return a large rule set quickly, because hypothesis is slow for many rules. A fifth deny."""

    def rule() -> Rule:
        labels = [chosen.choice((*LABELS, str(chosen.randrange(50)))) for _ in range(chosen.randint(1, 3))]
        name = ".".join([*labels, chosen.choice(("test", "com", "a", "wild.test"))])
        subtree = chosen.random() < 0.3  # noqa: PLR2004 - a share
        match chosen.choices(("named", "opaque", "address", "denying"), (14, 1, 1, 4))[0]:
            case "opaque":
                return _forwarding(name, chosen.choice(OPAQUE))
            case "address":
                return _at_address(name, chosen.choice(AT_ADDRESSES))
            case "denying":
                return _denying(name, subtree, chosen.choice((None, *Protocol)), chosen.choice((None, *PORTS)))
        return _named(name, subtree, chosen.choice(NAMED), chosen.choice(PORTS))

    return RuleSet.of(rule() for _ in range(most))


def names_near(rules: RuleSet) -> list[str]:
    """Return the names of the rules, their parents and siblings, and some names one and two labels below."""
    asked = {"test", "a.test", "other"}
    for rule in rules.rules:
        labels = rule.destination.name.split(".")
        above = {".".join(labels[start:]) for start in range(len(labels))}
        asked |= above
        asked |= {f"{label}.{name}" for name in above for label in ("a", "q", "q.a", "a.q")}
    return sorted(name for name in asked if len(name) <= 253)  # noqa: PLR2004 - RFC 1035
