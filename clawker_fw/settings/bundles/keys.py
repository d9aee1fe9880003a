"""The public keys that may have signed bundles, read from the files that the local settings name.

Nothing else is imported for it: that a bundle which is kept was signed by one of them is told by fingerprints.
"""

import hashlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clawker_fw.errors import SettingsError, unreadable_settings
from clawker_fw.settings.files import bounded

_MOST_OCTETS = 64 << 10
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_HINT = (
    "It holds keys as `cosign generate-key-pair` and `openssl pkey -pubout` write them: ECDSA P-256 or Ed25519."
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may have signed a bundle: its DER encoding (SubjectPublicKeyInfo), and the file it is from."""

    der: bytes
    path: Path

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of its encoding, which `openssl pkey -pubin -outform DER | sha256sum` prints."""
        return f"sha256:{hashlib.sha256(self.der).hexdigest()}"

    def verifies(self, signature: bytes, content: bytes) -> bool:
        """Whether this key has made a signature of content.

        Raises:
            SettingsError: when it is none of the kinds that can be used.
        """
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415 - slow to import
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415 - the same
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - the same
        from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415 - the same

        try:
            key = load_der_public_key(self.der)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _no_key(self.path) from error
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, content)
            elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
                key.verify(signature, content, ec.ECDSA(SHA256()))
            else:
                raise _no_key(self.path)
        except InvalidSignature:
            return False
        return True


def _no_key(path: Path) -> SettingsError:
    return SettingsError("bundle-key-invalid", f"{path} has no public key that can be used.", hint=_HINT)


def public_keys(paths: Sequence[Path]) -> tuple[PublicKey, ...]:
    """Read the public keys in files (PEM), without a library for it.

    Raises:
        SettingsError: when a file can't be read, or has none.
    """
    return tuple(key for path in paths for key in _keys_in(path))


def _keys_in(path: Path) -> Iterator[PublicKey]:
    try:
        text = bounded(path)[:_MOST_OCTETS].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable_settings(path, error) from error
    found = [each.partition(_END) for each in text.split(_BEGIN)[1:]]
    try:
        keys = [PublicKey(b64decode("".join(body.split()), validate=True), path) for body, _, _ in found]
    except Base64Error as error:
        raise _no_key(path) from error
    if not keys:
        raise _no_key(path)
    yield from keys
