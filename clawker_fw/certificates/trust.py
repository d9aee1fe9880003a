"""The files with which programs trust the stack's roots in addition to public CAs.

Most programs can only replace the system's CAs. So there are two forms: additional ones, and all of them.
"""

import warnings
from collections.abc import Iterable, Mapping

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from clawker_fw.certificates.credentials import certificates_in

ADDED, ALL, JAVA = "roots.pem", "authorities.pem", "authorities.p12"
"""The additional CAs; all CAs as PEM; all CAs as a truststore for Java."""

WGET, APT = "wgetrc", "apt.conf"
"""Settings of programs without a variable for CAs."""


def files(added: bytes, public: bytes, folder: str) -> Mapping[str, bytes]:
    """Return the files, which refer to each other below `folder`.

    `added` are the stack's roots and the CAs of the settings, `public` those that most programs know (PEM). Equal
    arguments give equal files.
    """
    everything = _read(added, public)
    return {
        ADDED: _pem(_read(added)),
        ALL: _pem(everything),
        JAVA: _truststore(everything),
        WGET: f"ca_certificate = {folder}/{ALL}\n".encode(),
        APT: f'Acquire::https::CaInfo "{folder}/{ALL}";\n'.encode(),
    }


def _read(*texts: bytes) -> list[x509.Certificate]:
    """Return each readable certificate once. An unreadable one would make some programs reject the file."""
    certificates = []
    with warnings.catch_warnings(action="ignore"):  # old CAs violate current rules
        for der in dict.fromkeys(der for text in texts for der in certificates_in(text)):
            try:
                certificates.append(x509.load_der_x509_certificate(der))
            except ValueError:
                continue
    return certificates


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _truststore(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return a PKCS 12 truststore that Java reads as any type, with any password or none.

    So it has no password verification (`macData`, RFC 7292, section 4) and no salt.
    """
    named = [
        PKCS12Certificate(certificate, certificate.fingerprint(SHA256()).hex().encode())
        for certificate in certificates
    ]
    made = serialize_java_truststore(named, NoEncryption())
    content = made[_head(made)[0] :]
    version = sum(_head(content))
    kept = content[: version + sum(_head(content[version:]))]
    length = len(kept).to_bytes((len(kept).bit_length() + 7) // 8)
    return bytes((made[0], 0x80 | len(length))) + length + kept


def _head(encoded: bytes) -> tuple[int, int]:
    """Return the lengths in bytes of a value's head (tag and length) and of its content (X.690, section 8.1)."""
    first = encoded[1]
    octets = first & 0x7F if first & 0x80 else 0
    return 2 + octets, int.from_bytes(encoded[2 : 2 + octets]) if octets else first
