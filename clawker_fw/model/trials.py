"""Attempts to resolve and to use a name as an agent would."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PlainSerializer


@dataclass(frozen=True, slots=True)
class FoundAddress:
    """An address of a name. `closed` are the kinds of rules (`guarded`, `exempt`) that can't reach it."""

    address: str
    closed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lookup:
    """The IPv4 addresses of a name as Envoy sees them now, or why there are none."""

    addresses: tuple[FoundAddress, ...]
    error: str = ""

    def open_to(self, kind: str) -> tuple[str, ...]:
        """Return the addresses that a kind of rule can reach."""
        return tuple(address.address for address in self.addresses if kind not in address.closed)


@dataclass(frozen=True, slots=True)
class ProxyAnswer:
    """The upstream proxy's answer to a request.

    `status` is 0 without an answer. `error` is the reason, or Squid's own error. `challenges` are the schemes of
    credentials that the proxy demands.
    """

    status: int
    seconds: float
    error: str = ""
    challenges: str = ""


@dataclass(frozen=True, slots=True)
class TrialStep:
    """A step of an attempt: `resolve`, `connect`, `handshake`, `request`, `wait` or `datagram`."""

    name: Annotated[str, Field(alias="step")]
    source: Annotated[str, Field(exclude=True)]
    """The address and port that the siblings' records name."""
    seconds: float
    ok: bool
    status: Annotated[int, PlainSerializer(lambda status: status or None, return_type=int | None)]
    """Of the HTTP response."""
    outcome: str


@dataclass(frozen=True, slots=True)
class Trial:
    """An attempt to use a name as an agent would: its steps until one failed."""

    steps: Annotated[tuple[TrialStep, ...], Field(min_length=1)]
