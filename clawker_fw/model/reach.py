"""What a sibling's helper finds out about one name, from inside the sibling's container."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a name. `closed` are the kinds of rules (`guarded`, `exempt`) that can't reach it."""

    address: str
    closed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lookup:
    """The IPv4 addresses of a name as Envoy sees them at the moment, or the reason why there is none."""

    addresses: tuple[Address, ...]
    error: str = ""

    def open_to(self, kind: str) -> tuple[str, ...]:
        """Return the addresses that can be reached with a kind of rules."""
        return tuple(each.address for each in self.addresses if kind not in each.closed)


@dataclass(frozen=True, slots=True)
class TrialStep:
    """A step of an attempt: `resolve`, `connect`, `handshake` or `request`.

    `source` is the address and port that the siblings' records name. `status` is that of an HTTP response, or 0.
    """

    name: str
    source: str
    seconds: float
    ok: bool
    status: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Trial:
    """An attempt to use a name as an agent would: the steps until one failed."""

    steps: tuple[TrialStep, ...]
