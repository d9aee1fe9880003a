"""The certificates by which the siblings and a collector recognise each other: minted here, and judged before use.

Nothing is read or written here. `cryptography` is imported inside functions only: it takes 40 to 75 ms, which a
command that finds a judgement in its cache does not spend.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from clawker_fw.certificates.credentials import Credentials, Pair, address_of
from clawker_fw.model import Sibling
from clawker_fw.rules.until import rfc3339

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

AUTHORITY_LIFE, CLIENT_LIFE, SERVER_LIFE = timedelta(days=3653), timedelta(days=90), timedelta(days=365)

RENEWED_AFTER = 2 / 3
"""The part of its life after which a certificate is renewed."""

LONGEST_COMMON_NAME = 64

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

SKEW = timedelta(hours=1)
"""How far the clock of a collector's machine may be behind this one's."""


def renewed_at(begins: float, ends: float) -> float:
    """Return when a certificate with this life should be renewed."""
    return begins + RENEWED_AFTER * (ends - begins)


def is_due(now: float, begins: float, ends: float) -> bool:
    """Whether a certificate with this life should have been renewed."""
    return now >= renewed_at(begins, ends)


class Use(StrEnum):
    """What a certificate is for."""

    AUTHORITY = "authority"
    CLIENT = "client"
    SERVER = "server"
    OTHER = "other"


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

    def written(self) -> str:
        """Return the judgement as text."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "Judgement | None":
        """Read a judgement from text, or return None if it is none."""
        with suppress(ValueError, TypeError, KeyError):
            found = json.loads(text)
            first, second = found["issued"]
            return cls(
                str(found["problem"]),
                float(found["begins"]),
                float(found["ends"]),
                (float(first), float(second)),
                float(found["authority_ends"]),
            )
        return None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. Times are in seconds since 1970; `fingerprint` is SHA-256, in hexadecimal."""

    subject: str
    use: Use
    names: tuple[str, ...]
    begins: float
    ends: float
    fingerprint: str

    @property
    def renewed_at(self) -> float:
        """When the certificate should be renewed."""
        return renewed_at(self.begins, self.ends)


def mint_authority(project: str, now: float) -> Pair:
    """Return a new authority. It is trusted by two siblings and one collector only, so it has no constraints."""
    from cryptography import x509  # noqa: PLC0415 - slow

    key = new_key()
    name = named(f"clawker-fw {project} infrastructure CA")
    builder = (
        begun(x509.CertificateBuilder(), now, AUTHORITY_LIFE)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return signed(builder, key, key)


def mint_client(authority: Pair, project: str, client: str, now: float) -> Pair:
    """Return a client certificate for a sibling, or for a watcher.

    Raises:
        ValueError: when the authority can't be used.
    """
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415 - slow

    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"spiffe://clawker-fw/{project}/{client}")]
    subject = f"{project}-{client}"
    return _leaf(authority, subject, names, ExtendedKeyUsageOID.CLIENT_AUTH, now=now, life=CLIENT_LIFE)


def mint_server(authority: Pair, host: str, now: float) -> Pair:
    """Return a server certificate for the collector at a host: a name, or an address.

    Raises:
        ValueError: when the authority can't be used.
    """
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415 - slow

    address = address_of(host)
    name: x509.GeneralName = x509.IPAddress(address) if address else x509.DNSName(host)
    return _leaf(
        authority, host[:LONGEST_COMMON_NAME], [name], ExtendedKeyUsageOID.SERVER_AUTH, now=now, life=SERVER_LIFE
    )


def judge(credentials: Credentials) -> Judgement:
    """Judge credentials: keys fit, and both certificates are for clients and lead to a trusted authority."""
    from cryptography import x509  # noqa: PLC0415 - slow

    try:
        trusted = x509.load_pem_x509_certificates(credentials.trust)
    except ValueError as error:
        return Judgement(f"the authority's certificate can't be read: {error}")
    leaves: list[x509.Certificate] = []
    for sibling in Sibling:
        try:
            leaves.append(_checked(credentials.of(sibling), trusted))
        except unusable_errors() as error:
            return Judgement(f"{sibling}'s certificate or key can't be used: {error or type(error).__name__}")
    begins = max(begins_of(leaf) for leaf in leaves)
    ends = min(ends_of(each) for each in (*leaves, trusted[0]))
    return Judgement("", begins, ends, (begins_of(trusted[0]), begins), ends_of(trusted[0]))


def _checked(pair: Pair, trusted: "list[x509.Certificate]") -> "x509.Certificate":
    """Return the certificate of a pair, in the middle of whose life it is a client's and trusted.

    Raises:
        ValueError, and what `unusable_errors` has: when it can't be used.
    """
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - slow
    from cryptography.x509.verification import PolicyBuilder, Store  # noqa: PLC0415 - slow

    leaf, *between = x509.load_pem_x509_certificates(pair.certificate)
    if load_pem_private_key(pair.key, None).public_key() != leaf.public_key():
        raise ValueError("the key belongs to another certificate")
    middle = datetime.fromtimestamp((begins_of(leaf) + ends_of(leaf)) / 2, UTC)
    verifier = PolicyBuilder().store(Store(trusted)).time(middle).build_client_verifier()
    verifier.verify(leaf, between)
    return leaf


def unusable_errors() -> tuple[type[Exception], ...]:
    """Return the errors that `cryptography` raises about a certificate or a key that can't be used."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415 - slow
    from cryptography.x509 import ExtensionNotFound  # noqa: PLC0415 - slow
    from cryptography.x509.verification import VerificationError  # noqa: PLC0415 - slow

    return ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, ExtensionNotFound, VerificationError


def certificate(pem: bytes) -> Certificate:
    """Return what the first certificate in a PEM says.

    Raises:
        ValueError: when there is none.
    """
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - slow

    first = x509.load_pem_x509_certificates(pem)[0]
    return Certificate(
        first.subject.rfc4514_string(),
        _use(first),
        tuple(_names(first)),
        begins_of(first),
        ends_of(first),
        first.fingerprint(SHA256()).hex(),
    )


def is_issued_by(pem: bytes, authority: bytes) -> bool:
    """Whether an authority has signed a certificate. Of either PEM, the first counts.

    Raises:
        ValueError: when there is none.
    """
    from cryptography import x509  # noqa: PLC0415 - slow

    leaf, issuer = (x509.load_pem_x509_certificates(each)[0] for each in (pem, authority))
    try:
        leaf.verify_directly_issued_by(issuer)
    except unusable_errors():
        return False
    return True


def first_certificate(pem: bytes) -> bytes:
    """Return the first certificate of a PEM alone."""
    end = b"-----END CERTIFICATE-----\n"
    return pem[: pem.find(end) + len(end)] if end in pem else pem


def _use(found: "x509.Certificate") -> Use:
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415 - slow

    with suppress(x509.ExtensionNotFound):
        if found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return Use.AUTHORITY
    with suppress(x509.ExtensionNotFound):
        uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH in uses:
            return Use.CLIENT
        if ExtendedKeyUsageOID.SERVER_AUTH in uses:
            return Use.SERVER
    return Use.OTHER


def _names(found: "x509.Certificate") -> Iterable[str]:
    from cryptography import x509  # noqa: PLC0415 - slow

    with suppress(x509.ExtensionNotFound):
        return [
            str(name.value) for name in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        ]
    return []


def _leaf(
    authority: Pair,
    subject: str,
    names: "list[x509.GeneralName]",
    use: "x509.ObjectIdentifier",
    *,
    now: float,
    life: timedelta,
) -> Pair:
    from cryptography import x509  # noqa: PLC0415 - slow

    try:
        issuer, issuing, identifier = issuer_of(authority)
        key = new_key()
        builder = (
            begun(x509.CertificateBuilder(), now, life)
            .subject_name(named(subject))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(identifier, critical=False)
        )
        return signed(builder, key, issuing)
    except unusable_errors() as error:
        raise ValueError(f"the authority can't be used: {error}") from error


def issuer_of(
    authority: Pair,
) -> "tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes, x509.AuthorityKeyIdentifier]":
    """Return an authority's certificate and key, and what says in a certificate that it is from this key.

    Raises:
        What `unusable_errors` has: when it can't be used.
    """
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - slow

    issuer = x509.load_pem_x509_certificates(authority.certificate)[0]
    key: CertificateIssuerPrivateKeyTypes = load_pem_private_key(authority.key, None)  # type: ignore[assignment]  # checked by sign()
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return issuer, key, x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def begun(builder: "x509.CertificateBuilder", now: float, life: timedelta) -> "x509.CertificateBuilder":
    """Give a certificate a serial number and its life, which begins an hour before now."""
    from cryptography import x509  # noqa: PLC0415 - slow

    begins = datetime.fromtimestamp(int(now), UTC)
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(begins - SKEW)
        .not_valid_after(begins + life)
    )


def signed(
    builder: "x509.CertificateBuilder",
    key: "CertificateIssuerPrivateKeyTypes",
    issuing: "CertificateIssuerPrivateKeyTypes",
) -> Pair:
    """Sign a certificate for a key, and return both."""
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - slow

    return Pair(
        builder.sign(issuing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def new_key() -> "CertificateIssuerPrivateKeyTypes":
    """Return a new key (ECDSA, P-256)."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - slow

    return ec.generate_private_key(ec.SECP256R1())


def named(common: str) -> "x509.Name":
    """Return a subject with a common name."""
    from cryptography import x509  # noqa: PLC0415 - slow

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, common)])


def key_usage(*names: str) -> "x509.KeyUsage":
    """Return what a certificate's key may be used for, and nothing else."""
    from cryptography import x509  # noqa: PLC0415 - slow

    return x509.KeyUsage(**{name: name in names for name in _USAGES})


def begins_of(found: "x509.Certificate") -> float:
    """Return when a certificate begins, in seconds since 1970."""
    return found.not_valid_before_utc.timestamp()


def ends_of(found: "x509.Certificate") -> float:
    """Return when a certificate ends, in seconds since 1970."""
    return found.not_valid_after_utc.timestamp()
