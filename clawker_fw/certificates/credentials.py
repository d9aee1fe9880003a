"""What siblings prove with who they are, to a collector and to agents, as values.

How they are made and chosen is in `store`.

Every command imports this module, also without telemetry, so it imports nothing that only telemetry needs.
"""

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from clawker_fw.model import Certificate, Sibling


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, perhaps with those between it and its authority, and its private key. Both are PEM."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @property
    def document(self) -> dict[str, str]:
        """The pair as our own programs in the containers read it."""
        return {"certificate": self.certificate.decode(), "key": self.key.decode()}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Pair":
        """Return the pair in a document.

        Raises:
            AttributeError, KeyError, TypeError: when there is none.
        """
        return cls(document["certificate"].encode(), document["key"].encode())


@dataclass(frozen=True, slots=True)
class Credentials:
    """What both siblings need to speak with a collector. `trust` are the authorities' certificates, as PEM."""

    trust: bytes = field(repr=False)
    envoy: Pair
    coredns: Pair

    def of(self, sibling: Sibling) -> Pair:
        """Return a sibling's certificate and key."""
        return self.envoy if sibling is Sibling.ENVOY else self.coredns


@dataclass(frozen=True, slots=True)
class Running:
    """What a stack has: the credentials of both siblings, and whether either has any.

    `collector` is the certificate that the collector showed last, if a sibling knows.
    """

    credentials: Credentials | None = None
    any: bool = False
    collector: Certificate | None = None


NO_CREDENTIALS = Running()


@dataclass(frozen=True, slots=True)
class Provision:
    """The credentials for a stack. Without any, `reason` says why; else it says what is wrong with those here.

    `renewed_at` is when they should be renewed, in seconds since 1970, if that is up to this machine. `due` says
    what else should be renewed, which only the user can do. `live` is why what is live can't be used, or empty.
    """

    credentials: Credentials | None = None
    reason: str = ""
    renewed_at: float | None = None
    due: tuple[str, ...] = ()
    live: str = ""


@dataclass(frozen=True, slots=True)
class Authorities:
    """What connections are inspected with: the roots that agents trust, as PEM, and intermediates under them."""

    trust: bytes = b""
    intermediates: tuple[Pair, ...] = field(default=(), repr=False)


NO_AUTHORITIES = Authorities()


@dataclass(frozen=True, slots=True)
class Provided:
    """The authorities that a stack should have. Times are in seconds since 1970.

    `reason` says why not all names have an intermediate, or why one is not renewed. `renewed_at` is when the next
    intermediate should be renewed. `root_ends` is when the root that signs expires, and `root_due` whether it
    should be rotated, which only the user does.
    """

    trust: bytes = b""
    intermediates: tuple[Pair, ...] = field(default=(), repr=False)
    reason: str = ""
    renewed_at: float | None = None
    root_ends: float | None = None
    root_due: bool = False

    @property
    def authorities(self) -> Authorities:
        """What the stack should have."""
        return Authorities(self.trust, self.intermediates)


def address_of(host: str) -> ipaddress.IPv4Address | None:
    """Return the address that a host is named by, or None if it is a name."""
    with suppress(ValueError):
        return ipaddress.IPv4Address(host)
    return None
