"""What siblings prove to a collector who they are with, as values. How they are made and judged is in `certs`.

Every command imports this module, also without telemetry, so it imports nothing that only telemetry needs.
"""

import ipaddress
from contextlib import suppress
from dataclasses import dataclass, field

from clawker_fw.model import ServerCertificate, Sibling


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, perhaps with those between it and its authority, and its private key. Both are PEM."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)


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
    collector: ServerCertificate | None = None


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


def address_of(host: str) -> ipaddress.IPv4Address | None:
    """Return the address that a host is named by, or None if it is a name."""
    with suppress(ValueError):
        return ipaddress.IPv4Address(host)
    return None
