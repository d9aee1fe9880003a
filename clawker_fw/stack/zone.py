"""The DNS zone: a complete root zone in which allowed names have Envoy's address and nothing else exists.

Generator and traps (wildcards, empty non-terminals; RFC 4592): docs/how-it-works.md.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

from clawker_fw.rules.matcher import Matcher, Node
from clawker_fw.rules.ruleset import RuleSet

VERSION_NAME = "version.clawker-fw.invalid"
"""Its TXT record is the last of the zone: proof that the whole file was read."""

TTL = 1
"""Seconds that an answer, or a refusal, may be kept: how fast a replaced Envoy takes over."""

_LONGEST_WITH_WILDCARD = 251


def allowed_owners(rules: RuleSet) -> tuple[str, ...]:
    """Return the owner names of the address records, wildcards included, in one order."""
    return tuple(sorted(_owners(Matcher(rules).root, inherited=False), key=_by_labels))


def _owners(node: Node, *, inherited: bool) -> Iterator[str]:
    """Walk the tree; `inherited` is whether the name above allows everything below it.

    An empty non-terminal does not inherit a wildcard (`a.b.wild.test` beside `.wild.test` makes `b.wild.test`
    exist and hide `*.wild.test`), so a node with children gets its own records; one without needs none.
    """
    below = inherited or bool(node.subtree)
    at_name = below or bool(node.exact)
    children = [owner for child in node.children.values() for owner in _owners(child, inherited=below)]
    yield from children
    redundant = not children and at_name == below == inherited
    if node.name and at_name and not redundant:
        yield node.name
        if below and len(node.name) <= _LONGEST_WITH_WILDCARD:
            yield f"*.{node.name}"


def _by_labels(name: str) -> list[str]:
    return name.split(".")[::-1]


def serial(version: str) -> int:
    """Return the SOA serial for a version: CoreDNS reads a zone again when the serial is another one."""
    return int(version[:8], 16) or 1


def view(owners: tuple[str, ...], envoy: IPv4Address, version: str) -> dict[str, object]:
    """Return what the zone template prints."""
    return {
        "owners": owners,
        "address": str(envoy),
        "serial": serial(version),
        "ttl": TTL,
        "version": version,
        "version_name": VERSION_NAME,
    }
