"""What siblings prove with who they are, to a collector and to agents, and what was judged of it, as values.

How they are made and chosen is in `store`. Every command imports this module, also without telemetry, so it needs
no library for certificates.
"""

import binascii
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from clawker_fw.model.probes import Certificate
from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.until import rfc3339

RENEWED_AFTER = 2 / 3
"""The part of its life after which a certificate is renewed."""


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
class Provided(Authorities):
    """The authorities that a stack should have. Times are in seconds since 1970.

    `reason` says why not all names have an intermediate, or why one is not renewed. `renewed_at` is when the next
    intermediate should be renewed. `root_ends` is when the root that signs expires, and `root_due` whether it
    should be rotated, which only the user does.
    """

    reason: str = ""
    renewed_at: float | None = None
    root_ends: float | None = None
    root_due: bool = False


def address_of(host: str) -> ipaddress.IPv4Address | None:
    """Return the address that a host is named by, or None if it is a name."""
    with suppress(ValueError):
        return ipaddress.IPv4Address(host)
    return None


def renewed_at(begins: float, ends: float) -> float:
    """Return when a certificate with this life should be renewed."""
    return begins + RENEWED_AFTER * (ends - begins)


def is_due(now: float, begins: float, ends: float) -> bool:
    """Whether a certificate with this life should have been renewed."""
    return now >= renewed_at(begins, ends)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is true of credentials whatever the time is. Times are in seconds since 1970.

    `problem` is why they can't be used at all, or empty. They are valid from `begins` to `ends`. `issued` tells
    which of two is newer: when the authority began, then when the certificates did. The authority itself is valid
    until `authority_ends`.
    """

    problem: str = ""
    begins: float = 0
    ends: float = 0
    issued: tuple[float, float] = (0, 0)
    authority_ends: float = 0

    def unusable(self, now: float, lead: float = 0) -> str:
        """Return why they can't be used now and for `lead` seconds from now, or an empty string."""
        if self.problem:
            return self.problem
        if now < self.begins:
            return f"the certificates are valid only from {rfc3339(self.begins)} on"
        if now + lead >= self.ends:
            return f"the certificates {'have expired' if now >= self.ends else 'expire'} at {rfc3339(self.ends)}"
        return ""

    @property
    def renewed_at(self) -> float:
        """When the certificates should be renewed."""
        return renewed_at(self.begins, self.ends)


_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)


def certificates_in(pem: bytes) -> list[bytes]:
    """Return the certificates in a PEM (DER, not looked at). Whatever else is in it is left out."""
    found = []
    for block in _BLOCK.finditer(pem):
        with suppress(binascii.Error):
            found.append(binascii.a2b_base64(block[1]))
    return found


def fingerprints(pem: bytes) -> tuple[str, ...]:
    """Return the fingerprints (SHA-256, in hexadecimal) of the certificates in a PEM."""
    return tuple(hashlib.sha256(each).hexdigest() for each in certificates_in(pem))
