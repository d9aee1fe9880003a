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

NETWORK = "192.0.2.8/30"
"""Each of its addresses has a name."""

AT_ADDRESSES = (*OPAQUE, (Protocol.HTTPS, 8443, None), (Protocol.HTTP, 8081, None))
"""What rules for addresses are for, which forward everything as well."""

NAMED = (Protocol.HTTPS, Protocol.HTTP)
"""Protocols that name the host."""

CONNECTIONS = tuple(
    (protocol, port)
    for protocol in Protocol
    for port in sorted({*PORTS, *(first for _, first, _ in AT_ADDRESSES), 9001})
)
"""What an agent may try with a name: a protocol and a port."""


def names() -> st.SearchStrategy[str]:
    """Return names of two to five labels."""
    above = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3)
    return above.map(lambda labels: ".".join([*labels, "test"]))


def rules() -> st.SearchStrategy[Rule]:
    """Return rules, a third of which deny."""
    return st.one_of(_allowing(), _allowing(), _opaque(), _network(), _denying(), _denying())


def _opaque() -> st.SearchStrategy[Rule]:
    return st.builds(
        lambda name, what: Rule(
            Destination(name, subtree=False), what[0], what[1], len(name) % 2 == 0, last_port=what[2]
        ),
        names(),
        st.sampled_from(OPAQUE),
    )


def _network() -> st.SearchStrategy[Rule]:
    """Networks are the same below each name: two that overlap would contradict each other."""
    return st.builds(_of_network, names(), st.sampled_from(AT_ADDRESSES))


def _of_network(below: str, what: tuple[Protocol, int, int | None]) -> Rule:
    protocol, first, last = what
    destination = Destination(below, subtree=False)
    return Rule(destination, protocol, first, len(below) % 2 == 0, last_port=last, host=NETWORK)


def _denying() -> st.SearchStrategy[Rule]:
    return st.builds(
        lambda name, subtree, protocol, port: Rule(
            Destination(name, subtree), protocol, port, action=RuleAction.DENY
        ),
        names() | names().map(_of_an_address),
        st.booleans(),
        st.none() | st.sampled_from(Protocol),
        st.none() | st.sampled_from(PORTS),
    )


def _of_an_address(below: str) -> str:
    return f"192-0-2-9.{below}"


def _allowing() -> st.SearchStrategy[Rule]:
    """`allow_private` is derived from the name, so that no rules contradict each other."""
    return st.builds(
        lambda name, subtree, protocol, port: Rule(
            Destination(name, subtree), protocol, port, allow_private=len(name) % 2 == 0
        ),
        names(),
        st.booleans(),
        st.sampled_from(NAMED),
        st.sampled_from(PORTS),
    )


def rule_sets(most: int = 12) -> st.SearchStrategy[RuleSet]:
    """Return rule sets."""
    return st.lists(rules(), max_size=most).map(RuleSet.of)


_SUBTREES, _OPAQUE, _NETWORKS, _DENIALS = 0.3, 0.1, 0.3, 0.2
"""How many of random rules are for subtrees, forward everything, are for a network then, or deny."""


def random_rules(chosen: random.Random, most: int) -> RuleSet:
    """Return a large rule set quickly, because hypothesis is slow for many rules."""
    top = ("test", "com", "a", "wild.test")
    entries = []
    for _ in range(most):
        labels = [chosen.choice((*LABELS, str(chosen.randrange(50)))) for _ in range(chosen.randint(1, 3))]
        name = ".".join([*labels, chosen.choice(top)])
        destination = Destination(name, chosen.random() < _SUBTREES)
        private = len(name) % 2 == 0
        if chosen.random() < _OPAQUE:
            if chosen.random() < _NETWORKS:
                entries.append(_of_network(name, chosen.choice(AT_ADDRESSES)))
                denied = Destination(_of_an_address(name), subtree=False)
                if chosen.random() < _DENIALS:
                    entries.append(Rule(denied, chosen.choice((None, *Protocol)), None, action=RuleAction.DENY))
                continue
            protocol, first, last = chosen.choice(OPAQUE)
            exact = Destination(name, subtree=False)
            entries.append(Rule(exact, protocol, first, allow_private=private, last_port=last))
            continue
        if chosen.random() < _DENIALS:
            protocol, port = chosen.choice((None, *Protocol)), chosen.choice((None, *PORTS))
            entries.append(Rule(destination, protocol, port, action=RuleAction.DENY))
        else:
            protocol, port = chosen.choice(NAMED), chosen.choice(PORTS)
            entries.append(Rule(destination, protocol, port, allow_private=private))
    return RuleSet.of(entries)


def names_near(rules: RuleSet) -> list[str]:
    """Return the names of the rules, their parents and siblings, and some names one and two labels below."""
    asked = {"test", "a.test", "other"}
    for rule in rules.rules:
        labels = rule.destination.name.split(".")
        above = {".".join(labels[start:]) for start in range(len(labels))}
        asked |= above | set(rule.names) | ({f"192-0-2-12.{rule.destination.name}"} if rule.block else set())
        asked |= {f"{label}.{name}" for name in above for label in ("a", "q", "q.a", "a.q")}
    return sorted(name for name in asked if len(name) <= 253)  # noqa: PLR2004 - RFC 1035
