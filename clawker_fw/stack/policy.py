"""The resolver's list of names: what the plugin `go/coredns/policy` decides by.

`observe` reads it as well, before settings and rules are read, so it imports nothing that only those need.
"""

import json
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from clawker_fw.model import Files
from clawker_fw.stack import container
from clawker_fw.stack.resources import Resource

if TYPE_CHECKING:
    from clawker_fw.rules.ruleset import RuleSet

TTL = 1
"""The TTL of answers and refusals, in seconds. It limits how long agents use a replaced Envoy."""

RESOURCE = Resource("policy", "policy/names.json", hashed=True)

POLICY = container.HOT + RESOURCE.path

_ENVOY = "envoy"


def content(rules: "RuleSet", envoy: IPv4Address) -> bytes:
    """Return the list for a set of rules and Envoy's address.

    Each entry says what applies at a name and below it, and the most specific entry decides. Entries refer to
    addresses by name, so another address of Envoy changes one line.
    """
    names: dict[str, dict[str, str]] = {}
    for rule in rules.rules:
        entry = names.setdefault(rule.destination.name, {"at": _ENVOY})
        if rule.destination.subtree:
            entry["below"] = _ENVOY
    document = {"ttl": TTL, "addresses": {_ENVOY: str(envoy)}, "names": names}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def envoy_address(files: Files) -> str:
    """Return the address of Envoy in a resolver's files, or an empty string if they are unreadable."""
    try:
        return str(json.loads(files[POLICY].content)["addresses"][_ENVOY])
    except (KeyError, TypeError, ValueError):
        return ""
