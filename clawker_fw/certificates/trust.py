"""The files by which programs trust the roots of inspected connections, beside all others that they trust.

Most programs can only be given all authorities at once, in place of the system's. So there are two forms: what is
added to those that a program knows, and everything that it should know.
"""

import warnings
from collections.abc import Iterable, Mapping

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from clawker_fw.certificates.credentials import certificates_in

ADDED, ALL, JAVA = "roots.pem", "authorities.pem", "authorities.p12"
"""What is added to the public authorities; everything, as PEM and as a truststore for Java."""

WGET, APT = "wgetrc", "apt.conf"
"""Settings of programs that have no variable for authorities."""


def files(added: bytes, public: bytes, folder: str) -> Mapping[str, bytes]:
    """Return the files, of which programs find the others below `folder`.

    `added` are the roots of inspected connections and the authorities of the settings, and `public` those that
    most programs know (PEM). Equal arguments give the same files.
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
    """Return each certificate once. One that can't be read would keep some programs from reading the others."""
    found = []
    with warnings.catch_warnings(action="ignore"):  # old authorities break rules of today
        for each in dict.fromkeys(each for text in texts for each in certificates_in(text)):
            try:
                found.append(x509.load_der_x509_certificate(each))
            except ValueError:
                continue
    return found


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _truststore(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return a truststore (PKCS 12) that Java reads whatever type it expects, with any password and with none.

    So it has no code by which a password is verified (`macData`, RFC 7292, section 4), nor any salt.
    """
    named = [PKCS12Certificate(each, each.fingerprint(SHA256()).hex().encode()) for each in certificates]
    made = serialize_java_truststore(named, NoEncryption())
    content = made[_head(made)[0] :]
    version = sum(_head(content))
    kept = content[: version + sum(_head(content[version:]))]
    length = len(kept).to_bytes((len(kept).bit_length() + 7) // 8)
    return bytes((made[0], 0x80 | len(length))) + length + kept


def _head(encoded: bytes) -> tuple[int, int]:
    """Return how many octets a value's tag and length take, and how many its content (X.690, section 8.1)."""
    first = encoded[1]
    octets = first & 0x7F if first & 0x80 else 0
    return 2 + octets, int.from_bytes(encoded[2 : 2 + octets]) if octets else first
