"""Observing: until a time, what only the lack of a rule would refuse passes.

It is for names in the public form that no rule covers. Names of rules, also expired ones, names in `never` and
private names stay as they are. `Policy` decides what passes.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from clawker_fw.rules.destination import EVERY_NAME, LONGEST_NAME
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.until import rfc3339

PRIVATE_DOMAINS = frozenset({"alt", "arpa", "internal", "invalid", "local", "localhost", "onion"})
"""Top-level domains that never lead to the internet, as in `metadata.google.internal` (RFC 6761, RFC 6762,
RFC 8375, RFC 7686, RFC 9476; ICANN reserves `internal`)."""

PUBLIC_NAME = "(?:[A-Za-z0-9_-]{1,63}[.])+[A-Za-z][A-Za-z0-9_-]{1,62}"
"""The form of a name that can be public: it has a dot, and its last label is no number. A copy is in
go/internal/hostname."""

_USUAL = ((Protocol.HTTPS, 443), (Protocol.HTTP, 80))


@dataclass(frozen=True, slots=True)
class Observing:
    """Until when (seconds since 1970) observing holds, and what stays closed, as deny rules.

    `proxied` is whether it passes through the upstream proxy.
    """

    until: int
    never: tuple[Rule, ...] = ()
    proxied: bool = False

    def keys(self, rules: Iterable[Rule]) -> Mapping[tuple[Protocol, int], Rule]:
        """Return what may pass: https on 443, http on 80, and both on the ports that rules name for them.

        Each has the rule that stands for it where Envoy needs one. No settings have such a rule.
        """
        named = {key for rule in rules if not (rule.denies or rule.opaque) for key in rule.keys}
        never = [rule for rule in self.never if rule.destination == EVERY_NAME]
        return {
            key: Rule(EVERY_NAME, *key, until=self.until, proxied=self.proxied)
            for key in sorted(named.union(_USUAL))
            if not any(rule.matches(*key) for rule in never)
        }

    def closed(self, keys: Collection[tuple[Protocol, int]], ended: Iterable[Rule]) -> Iterator[Rule]:
        """Yield the rules whose names stay closed: those in `never` about these keys, and `ended` ones."""
        yield from (rule for rule in self.never if any(rule.matches(*key) for key in keys))
        yield from ended

    def __str__(self) -> str:
        """Return one line, like a rule."""
        return f"observe until {rfc3339(self.until)}"


def may_be_public(name: str) -> bool:
    """Whether a name has the form of a public one, and no top-level domain that is reserved for others."""
    _, _, last = name.lower().rpartition(".")
    return len(name) <= LONGEST_NAME and bool(re.fullmatch(PUBLIC_NAME, name)) and last not in PRIVATE_DOMAINS
