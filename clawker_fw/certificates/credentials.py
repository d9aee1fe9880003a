"""Credentials for a collector and for agents, and the results of their verification, as values.

`store` creates and chooses them. Every command imports this module, so it must not need a certificate library.
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
    """A certificate, possibly with intermediates, and its private key. Both are PEM."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @property
    def document(self) -> dict[str, str]:
        """The pair in the form that our programs in the containers read."""
        return {"certificate": self.certificate.decode(), "key": self.key.decode()}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Pair":
        """Return the pair in a document. Raise AttributeError, KeyError or TypeError if it has another form."""
        return cls(document["certificate"].encode(), document["key"].encode())


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of Envoy and CoreDNS for a collector. `trust` are the CA certificates (PEM)."""

    trust: bytes = field(repr=False)
    envoy: Pair
    coredns: Pair

    def of(self, sibling: Sibling) -> Pair:
        """Return the pair of Envoy or CoreDNS."""
        return self.envoy if sibling is Sibling.ENVOY else self.coredns


@dataclass(frozen=True, slots=True)
class Running:
    """A stack's credentials if both containers have them, and whether `any` has some.

    `collector` is the collector's last certificate, if a container has seen it.
    """

    credentials: Credentials | None = None
    any: bool = False
    collector: Certificate | None = None


NO_CREDENTIALS = Running()


@dataclass(frozen=True, slots=True)
class Provision:
    """The credentials for a stack. Without any, `reason` says why, otherwise what is wrong with local ones.

    `renewed_at` is when this machine should renew them, in seconds since 1970. `due` says what the user has to
    renew. `live` is why the loaded ones are unusable, or empty.
    """

    credentials: Credentials | None = None
    reason: str = ""
    renewed_at: float | None = None
    due: tuple[str, ...] = ()
    live: str = ""


@dataclass(frozen=True, slots=True)
class Authorities:
    """The CA of TLS inspection: the roots that agents trust, as PEM, and intermediates under them."""

    trust: bytes = b""
    intermediates: tuple[Pair, ...] = field(default=(), repr=False)


NO_AUTHORITIES = Authorities()


@dataclass(frozen=True, slots=True)
class Provided(Authorities):
    """The CAs that a stack should have. Times are in seconds since 1970.

    `reason` says why names lack an intermediate, or why one is not renewed. `renewed_at` is the next renewal of an
    intermediate. `root_ends` is when the signing root expires, and `root_due` whether the user should rotate it.
    """

    reason: str = ""
    renewed_at: float | None = None
    root_ends: float | None = None
    root_due: bool = False


def address_of(host: str) -> ipaddress.IPv4Address | None:
    """Return the address in a host's text form, or None if it is a name."""
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
    """The verification of credentials, independent of the time. Times are in seconds since 1970.

    `problem` is why they are unusable, or empty. They are valid from `begins` to `ends`, and the CA until
    `authority_ends`. The greater `issued` is newer: the CA's start, then the certificates' start.
    """

    problem: str = ""
    begins: float = 0
    ends: float = 0
    issued: tuple[float, float] = (0, 0)
    authority_ends: float = 0

    def unusable(self, now: float, lead: float = 0) -> str:
        """Return why they can't be used now or in `lead` seconds, or ""."""
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
    """Return the unparsed certificates (DER) in a PEM, without its other content."""
    certificates = []
    for block in _BLOCK.finditer(pem):
        with suppress(binascii.Error):
            certificates.append(binascii.a2b_base64(block[1]))
    return certificates


def fingerprints(pem: bytes) -> tuple[str, ...]:
    """Return the fingerprints (SHA-256, in hexadecimal) of the certificates in a PEM."""
    return tuple(hashlib.sha256(certificate).hexdigest() for certificate in certificates_in(pem))
