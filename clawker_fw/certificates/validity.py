"""What certificates say, and what was judged of them: values that need no library for certificates."""

import binascii
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass

from clawker_fw.rules.until import rfc3339

RENEWED_AFTER = 2 / 3
"""The part of its life after which a certificate is renewed."""


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


def first_certificate(pem: bytes) -> bytes:
    """Return the first certificate of a PEM alone."""
    end = b"-----END CERTIFICATE-----\n"
    return pem[: pem.find(end) + len(end)] if end in pem else pem
