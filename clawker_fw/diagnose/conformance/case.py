"""One thing that is tried against a stack. Pure."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

INTERNET = 1
"""The usual class of a question."""

CLOSED = frozenset({"closed without an answer"})
DENIED = frozenset({*CLOSED, "access denied"})
"""How TLS ends for a name that no rule allows."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to try. The other fields are what `fwctl attempts` needs to know for its kind."""

    id: str
    what: str
    holds: frozenset[str]
    kind: str
    network: str = "tcp"
    address: str = ""
    name: str = ""
    type: int = 0
    class_: int = INTERNET
    text: str = ""
    roots: str = ""
    control: bool = False
    """Whether it is allowed, and shows that the others were not refused for another reason."""

    def instruction(self) -> Mapping[str, str | int]:
        """Return what the helper is told: not what is expected."""
        fields = dataclasses.asdict(self)
        told = ("id", "kind", "network", "address", "name", "type", "text", "roots")
        return {**{name: fields[name] for name in told}, "class": self.class_}
