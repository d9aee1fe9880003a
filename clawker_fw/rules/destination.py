"""A rule's `dst`: a host name, parsed strictly into one canonical form.

`api.example.com` is exactly that host; `.example.com` is `example.com` and every name below it. Names follow
RFC 1035, but may contain underscores and start or end labels with hyphens. International names become A-labels
(RFC 5891).
"""

import re
from ipaddress import ip_address
from typing import NamedTuple

import idna

from clawker_fw.rules import suffixes

LONGEST_NAME = 253
LONGEST_LABEL = 63

_LABEL = rf"[a-z0-9_-]{{1,{LONGEST_LABEL}}}"
_ASCII_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NETWORK = re.compile(r"[0-9.]+/[0-9]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Destination(NamedTuple):
    """A lower-case name, and whether it includes the names below. A tuple, because it hashes and compares fast."""

    name: str
    subtree: bool

    def __str__(self) -> str:
        """Return the canonical `dst`."""
        return f".{self.name}" if self.subtree else self.name


EVERY_NAME = Destination("", subtree=True)


def parse_destination(text: str) -> Destination:
    """Parse a `dst`. Raise ValueError with one sentence: the error and, where possible, what to write instead."""
    name = text.lower()
    if subtree := name.startswith("."):
        name = name[1:]
    if name.endswith(".") and not name.endswith(".."):
        name = name[:-1]
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{name!r} is not a valid international domain name: {error}") from error
    if len(name) > LONGEST_NAME or not _ASCII_NAME.fullmatch(name):
        raise ValueError(_complaint(text, name))
    last_label = name.rpartition(".")[2]
    if last_label[0].isdigit() and _NUMBER.fullmatch(last_label):
        raise ValueError(f"{text!r} is an address; rules name hosts")
    if last_label == "invalid":
        raise ValueError(f"{text!r} can never exist: .invalid is reserved (RFC 6761)")
    return Destination(name, subtree)


def objection(destination: Destination) -> str:
    """Return why a `dst` is probably wrong, as a predicate; "" if it is fine. `force: true` overrides this."""
    name, subtree = destination.name, destination.subtree
    if name.rpartition(".")[2] == "localhost":
        return "always means the machine itself (RFC 6761): here Envoy's own container, which it never connects to"
    if subtree and "." not in name:
        return "would allow a whole top-level domain"
    if subtree and suffixes.is_shared(name):
        return f"would allow every site below {name}, a public suffix under which anybody can register"
    if suffixes.is_registry(name):
        return "is a public suffix under which others register names, not a host"
    return ""


def _complaint(text: str, name: str) -> str:
    """Describe the first problem of an invalid name."""
    labels = name.split(".")
    longest = max(labels, key=len)
    mistakes = {
        "is empty": not name,
        "has a space in it": any(character.isspace() for character in text),
        "has a scheme; write only the host's name and add `proto`": "://" in text,
        "is an address; rules name hosts": is_address(name),
        "is a network; write a rule with `as` for each of its addresses": _NETWORK.fullmatch(text),
        "has a path; write only the host's name": "/" in text,
        "has a port; write it as `port`": ":" in text,
        f"has a `*`; write `.{name.removeprefix('*.')}` for a name and everything below it": "*" in text,
        "has an empty label": "" in labels,
        f"has a label of {len(longest)} characters; {LONGEST_LABEL} is the most": len(longest) > LONGEST_LABEL,
        f"has {len(name)} characters; {LONGEST_NAME} is the most": len(name) > LONGEST_NAME,
        "is not a host name: labels consist of letters, digits, `_` and `-`": True,
    }
    return f"{text!r} {next(mistake for mistake, made in mistakes.items() if made)}"


def is_address(name: str) -> bool:
    """Whether a name is an IP address (IPv6 also in brackets)."""
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
