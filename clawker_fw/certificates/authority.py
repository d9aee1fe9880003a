"""The certificate authority of TLS inspection: roots, which agents trust, and intermediates beside Envoy.

An intermediate is constrained to its names, without addresses, so that a stolen key can't impersonate other hosts.
Roots are unconstrained, because not every client checks the constraints of a root. Names are divided among
intermediates, because clients limit the size of a chain (Java: 32 KB, about a thousand names).
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID

from clawker_fw.certificates.credentials import Pair, renewed_at
from clawker_fw.certificates.x509 import (
    LONGEST_COMMON_NAME,
    SKEW,
    UNUSABLE,
    fitting,
    issued,
    key_usage,
    life_of,
    new_key,
    self_signed,
)

INTERMEDIATE_LIFE = timedelta(days=30)

ANNOUNCED = timedelta(days=7)
"""How long agents must have had a new root before it signs."""

MOST_NAMES, MOST_BYTES = 300, 24 << 10
"""An intermediate's limits: the number of names, and their bytes in the certificate."""

_AROUND_A_NAME = 6
"""Bytes around a name in a certificate: a sequence, and a context-specific tag with a length."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A root, with its key if it is here, or an intermediate. Times are in seconds since 1970.

    An intermediate is for its `names` and those below them. `identifier` is its fingerprint.
    """

    pair: Pair
    begins: float
    ends: float
    identifier: str
    names: tuple[str, ...] = ()

    @property
    def made(self) -> float:
        """When it was created."""
        return self.begins + SKEW.total_seconds()

    @property
    def renewed_at(self) -> float:
        """When it should be renewed."""
        return renewed_at(self.begins, self.ends)


def shares(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Divide names among intermediates.

    Names below another name are left out, because the other's intermediate covers them. A share has the names with
    a common prefix of their hashes, so a new name changes or divides only one share.
    """
    distinct = set(names)
    apart = {name for name in distinct if distinct.isdisjoint(_above(name))}
    hashed = sorted((hashlib.sha256(name.encode()).digest(), name) for name in apart)
    return [tuple(sorted(name for _, name in share)) for share in _divided(hashed, 0)]


def _above(name: str) -> Iterator[str]:
    while name := name.partition(".")[2]:
        yield name


def _divided(hashed: list[tuple[bytes, str]], bit: int) -> Iterator[list[tuple[bytes, str]]]:
    size = sum(_AROUND_A_NAME + len(name) for _, name in hashed)
    if len(hashed) > MOST_NAMES or size > MOST_BYTES:
        for value in (0, 1):
            half = [entry for entry in hashed if entry[0][bit // 8] >> (7 - bit % 8) & 1 == value]
            yield from _divided(half, bit + 1)
    elif hashed:
        yield hashed


def mint_root(project: str, now: float) -> Pair:
    """Return a new root, without constraints, because some clients ignore them on a root."""
    key = new_key()
    return self_signed(key, _subject(project, "root", key), 1, now)


def mint_intermediate(root: Pair, project: str, names: Sequence[str], now: float) -> Pair:
    """Return an intermediate for these names and those below them. Raise ValueError if the root is unusable."""
    key = new_key()
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_constraints(names), True),
        (key_usage("key_cert_sign"), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    )
    return issued(root, key, _subject(project, "intermediate", key), extensions, now=now, life=INTERMEDIATE_LIFE)


def _subject(project: str, kind: str, key: CertificateIssuerPrivateKeyTypes) -> x509.Name:
    """Return a unique subject, because clients find issuers by name."""
    common = f"clawker-fw {project} inspection {kind}"[:LONGEST_COMMON_NAME]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
    return x509.Name(
        [
            x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, common),
            x509.NameAttribute(x509.oid.NameOID.SERIAL_NUMBER, identifier),
        ]
    )


def _constraints(names: Iterable[str]) -> x509.NameConstraints:
    """Return the constraints of an intermediate (RFC 5280, section 4.2.1.10)."""
    everything = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
    return x509.NameConstraints(
        [x509.DNSName(name) for name in names], [x509.IPAddress(network) for network in everything]
    )


def read_root(pair: Pair) -> Issuer:
    """Return a root with the data of its certificate. Raise ValueError if it can't be read."""
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    return Issuer(pair, *life_of(certificate), certificate.fingerprint(SHA256()).hex())


def signing(roots: Sequence[Issuer], now: float) -> Issuer | None:
    """Return the root that signs: the newest that was announced long enough ago, otherwise the oldest.

    It must have its key and not have expired.
    """
    able = sorted((root for root in roots if root.pair.key and now < root.ends), key=lambda root: root.made)
    announced = [issuer for issuer in able if now >= issuer.made + ANNOUNCED.total_seconds()]
    return announced[-1] if announced else next(iter(able), None)


def trusted(roots: Sequence[Issuer], now: float) -> list[Issuer]:
    """Return the roots that agents must trust, the newest first.

    A former root stays while an intermediate that it signed may be in use.
    """
    longest = (ANNOUNCED + INTERMEDIATE_LIFE).total_seconds()
    superseded = next((issuer.made for issuer in newest_first(roots) if now >= issuer.made + longest), -math.inf)
    return [issuer for issuer in newest_first(roots) if issuer.made >= superseded and now < issuer.ends]


def newest_first(roots: Iterable[Issuer]) -> list[Issuer]:
    """Return roots in the order of their creation, the newest first."""
    return sorted(roots, key=lambda root: root.made, reverse=True)


def judge(pair: Pair, roots: Sequence[Issuer]) -> Issuer:
    """Verify an intermediate under one of the roots at any time. Raise ValueError with the reason if it fails."""
    try:
        certificate = fitting(pair)[0]
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        if not basic.critical or basic.value != x509.BasicConstraints(ca=True, path_length=0):
            raise ValueError("it is not a CA for server certificates only")
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        names = [str(subtree.value) for subtree in constraints.value.permitted_subtrees or ()]
        if not names or not constraints.critical or constraints.value != _constraints(names):
            raise ValueError("it is not constrained to names")
    except UNUSABLE as error:
        raise ValueError(f"it can't be used: {error or type(error).__name__}") from error
    if not any(_is_issued_by(certificate, root) for root in roots):
        raise ValueError("it is from a root that is not trusted")
    return Issuer(pair, *life_of(certificate), certificate.fingerprint(SHA256()).hex(), tuple(sorted(names)))


def _is_issued_by(certificate: x509.Certificate, root: Issuer) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(root.pair.certificate))
    except UNUSABLE:
        return False
    return True
