"""Creates and verifies the certificates with which our containers and a collector authenticate each other.

`cryptography` takes 40 to 75 ms to import, so only commands that need it do.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from clawker_fw.certificates.credentials import Credentials, Judgement, Pair, address_of
from clawker_fw.model.probes import Certificate, CertificateUse
from clawker_fw.model.stacks import Sibling

AUTHORITY_LIFE, CLIENT_LIFE, SERVER_LIFE = timedelta(days=3653), timedelta(days=90), timedelta(days=365)

LONGEST_COMMON_NAME = 64

UNUSABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    VerificationError,
)
"""The errors of `cryptography` about an unusable certificate or key."""

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
"""How far a collector's clock may be behind."""


def mint_authority(project: str, now: float) -> Pair:
    """Return a new CA. It has no constraints, because only our containers and one collector trust it."""
    return self_signed(new_key(), named(f"clawker-fw {project} infrastructure CA"), 0, now)


def mint_client(authority: Pair, project: str, sibling: Sibling, now: float) -> Pair:
    """Return a client certificate for a container. Raise ValueError if the CA is unusable."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"spiffe://clawker-fw/{project}/{sibling}")]
    subject = f"{project}-{sibling}"
    return _leaf(authority, subject, names, ExtendedKeyUsageOID.CLIENT_AUTH, now=now, life=CLIENT_LIFE)


def mint_server(authority: Pair, host: str, now: float) -> Pair:
    """Return a server certificate for a collector's name or address. Raise ValueError if the CA is unusable."""
    address = address_of(host)
    name: x509.GeneralName = x509.IPAddress(address) if address else x509.DNSName(host)
    return _leaf(
        authority, host[:LONGEST_COMMON_NAME], [name], ExtendedKeyUsageOID.SERVER_AUTH, now=now, life=SERVER_LIFE
    )


def judge(credentials: Credentials) -> Judgement:
    """Verify that keys fit their certificates, which are for clients and issued by a trusted CA."""
    try:
        trusted = x509.load_pem_x509_certificates(credentials.trust)
    except ValueError as error:
        return Judgement(f"the CA's certificate can't be read: {error}")
    leaves: list[x509.Certificate] = []
    for sibling in Sibling:
        try:
            leaves.append(_checked(credentials.of(sibling), trusted))
        except UNUSABLE as error:
            return Judgement(f"{sibling}'s certificate or key can't be used: {error or type(error).__name__}")
    since, until = life_of(trusted[0])
    begins = max(life_of(leaf)[0] for leaf in leaves)
    ends = min(until, *(life_of(leaf)[1] for leaf in leaves))
    return Judgement("", begins, ends, (since, begins), until)


def _checked(pair: Pair, trusted: list[x509.Certificate]) -> x509.Certificate:
    """Return the certificate of a pair, verified as a trusted client's in the middle of its life."""
    leaf, *between = fitting(pair)
    middle = datetime.fromtimestamp(sum(life_of(leaf)) / 2, UTC)
    PolicyBuilder().store(Store(trusted)).time(middle).build_client_verifier().verify(leaf, between)
    return leaf


def fitting(pair: Pair) -> list[x509.Certificate]:
    """Return the certificates of a pair, the key's own first.

    Raises:
        ValueError, and the types in `UNUSABLE`: when it can't be read, or the key does not fit.
    """
    certificates = x509.load_pem_x509_certificates(pair.certificate)
    if load_pem_private_key(pair.key, None).public_key() != certificates[0].public_key():
        raise ValueError("the key belongs to another certificate")
    return certificates


def first(pem: bytes) -> bytes:
    """Return only the first certificate of a PEM. Raise ValueError if there is none."""
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.PEM)


def certificate(pem: bytes) -> Certificate:
    """Return the data of a PEM's first certificate. Raise ValueError if there is none."""
    first = x509.load_pem_x509_certificates(pem)[0]
    return Certificate(
        first.subject.rfc4514_string(),
        _names(first),
        *life_of(first),
        first.fingerprint(hashes.SHA256()).hex(),
        _use(first),
    )


def _use(certificate: x509.Certificate) -> CertificateUse:
    values = [extension.value for extension in certificate.extensions]
    if any(isinstance(value, x509.BasicConstraints) and value.ca for value in values):
        return CertificateUse.AUTHORITY
    uses = {use for value in values if isinstance(value, x509.ExtendedKeyUsage) for use in value}
    if ExtendedKeyUsageOID.CLIENT_AUTH in uses:
        return CertificateUse.CLIENT
    return CertificateUse.SERVER if ExtendedKeyUsageOID.SERVER_AUTH in uses else CertificateUse.OTHER


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    every = (
        extension.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.SubjectAlternativeName)
    )
    return tuple(str(name.value) for names in every for name in names)


def _leaf(
    authority: Pair,
    subject: str,
    names: list[x509.GeneralName],
    use: x509.ObjectIdentifier,
    *,
    now: float,
    life: timedelta,
) -> Pair:
    extensions = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage("digital_signature"), True),
        (x509.ExtendedKeyUsage([use]), False),
        (x509.SubjectAlternativeName(names), False),
    )
    return issued(authority, new_key(), named(subject), extensions, now=now, life=life)


def self_signed(key: CertificateIssuerPrivateKeyTypes, subject: x509.Name, path_length: int, now: float) -> Pair:
    """Return a self-signed CA with this maximum number of intermediates."""
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (key_usage("key_cert_sign", "crl_sign"), True),
    )
    return _signed(key, key, subject, subject, extensions, now=now, life=AUTHORITY_LIFE)


def issued(
    authority: Pair,
    key: CertificateIssuerPrivateKeyTypes,
    subject: x509.Name,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    *,
    now: float,
    life: timedelta,
) -> Pair:
    """Return a certificate; each extension has a flag for critical. Raise ValueError if the CA is unusable."""
    try:
        issuer = x509.load_pem_x509_certificates(authority.certificate)[0]
        issuing: CertificateIssuerPrivateKeyTypes = load_pem_private_key(authority.key, None)  # type: ignore[assignment]  # checked by sign()
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        every = (*extensions, (identifier, False))
        life = min(life, timedelta(seconds=life_of(issuer)[1] - int(now)))
        return _signed(key, issuing, subject, issuer.subject, every, now=now, life=life)
    except UNUSABLE as error:
        raise ValueError(f"the CA can't be used: {error}") from error


def _signed(
    key: CertificateIssuerPrivateKeyTypes,
    issuing: CertificateIssuerPrivateKeyTypes,
    subject: x509.Name,
    issuer: x509.Name,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    *,
    now: float,
    life: timedelta,
) -> Pair:
    """Return a certificate and its key. It is valid from an hour ago (`SKEW`)."""
    begins = datetime.fromtimestamp(int(now), UTC)
    builder = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - SKEW)
        .not_valid_after(begins + life)
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Pair(
        builder.sign(issuing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def new_key() -> CertificateIssuerPrivateKeyTypes:
    """Return a new key (ECDSA, P-256)."""
    return ec.generate_private_key(ec.SECP256R1())


def named(common: str) -> x509.Name:
    """Return a subject with a common name."""
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, common)])


def key_usage(*names: str) -> x509.KeyUsage:
    """Return an extension that permits only these uses of a key."""
    return x509.KeyUsage(**{name: name in names for name in _USAGES})


def life_of(certificate: x509.Certificate) -> tuple[float, float]:
    """Return the start and end of a certificate's validity, in seconds since 1970."""
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
