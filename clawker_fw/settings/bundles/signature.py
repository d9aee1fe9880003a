"""Signatures of bundles, as cosign makes and verifies them with a key.

For each signed manifest there is one under the tag `sha256-HEX.sig`, each of whose layers is a payload, with its
signature in an annotation (cosign's SIGNATURE_SPEC.md). A payload names the digest of what is signed. The
reference in it is not trusted: it is what the signer called it. Keys are ECDSA P-256 or Ed25519.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clawker_fw.errors import SettingsError, unreadable_settings
from clawker_fw.settings.bundles.artifact import descriptor
from clawker_fw.settings.bundles.keys import PublicKey
from clawker_fw.settings.bundles.reference import DIGEST, Reference
from clawker_fw.settings.bundles.registry import MOST_MANIFEST, OCI_MANIFEST, Manifest, Repository

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    SigningKey = EllipticCurvePrivateKey | Ed25519PrivateKey

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_KIND = "cosign container image signature"
_MOST_PAYLOAD = 16 << 10
_MOST_SIGNATURES = 50


# --- verifying ------------------------------------------------------------------------------------------------


def signature_tag(digest: str) -> str:
    """Return the tag under which the signatures of a manifest are."""
    return f"{digest.replace(':', '-')}.sig"


def verified(repository: Repository, digest: str, keys: Sequence[PublicKey], reference: Reference) -> PublicKey:
    """Return the key that has signed a manifest.

    Raises:
        SettingsError: when there is no signature, or none by one of these keys.
        RegistryError: when the registry can't be asked.
    """
    found = repository.manifest(signature_tag(digest))
    if found is None:
        raise SettingsError(
            "bundle-unsigned",
            f"{reference} has no signature.",
            context=[f"its digest is {digest}"],
            hint=f"Sign it: `cosign sign --key cosign.key {reference.registry}/{reference.name}@{digest}`, "
            "or `clawker-fw bundle push --key`.",
        )
    for layer in _layers(found):
        if (key := _signer(repository, layer, digest, keys)) is not None:
            return key
    raise SettingsError(
        "bundle-signature-wrong",
        f"{reference} is not signed by a key that is trusted here.",
        context=[f"its digest is {digest}", *(f"trusted is {each.fingerprint} in {each.path}" for each in keys)],
        hint="If it was signed with a new key, add its public key to `bundle_keys` in the local settings file.",
    )


def _layers(manifest: Manifest) -> Sequence[Mapping[str, Any]]:
    """Return the layers of a manifest that are mappings, no more than are ever needed."""
    try:
        layers = json.loads(manifest.content)["layers"]
        return [each for each in layers[:_MOST_SIGNATURES] if isinstance(each, dict)]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _signer(
    repository: Repository, layer: Mapping[str, Any], digest: str, keys: Sequence[PublicKey]
) -> PublicKey | None:
    """Return the key that has signed a digest by one of the layers, if any has."""
    try:
        if layer["mediaType"] != PAYLOAD:
            return None
        signature = b64decode(layer["annotations"][SIGNATURE], validate=True)
        blob, size = str(layer["digest"]), int(layer["size"])
    except (ValueError, LookupError, TypeError):
        return None
    if not re.fullmatch(DIGEST, blob):
        return None
    content = repository.blob(blob, size, _MOST_PAYLOAD)
    key = next((each for each in keys if each.verifies(signature, content)), None)
    return key if key and _names(content, digest) else None


def _names(payload: bytes, digest: str) -> bool:
    """Whether a payload is about a manifest. It is looked at only once its signature has been verified."""
    try:
        critical = json.loads(payload)["critical"]
        return bool(critical["type"] == _KIND and critical["image"]["docker-manifest-digest"] == digest)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


# --- signing --------------------------------------------------------------------------------------------------


def signing_key(path: Path) -> "SigningKey":
    """Read a private key (PEM) that is not encrypted.

    Raises:
        SettingsError: when there is none that can be used.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - slow to import
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - the same

    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable_settings(path, error) from error
    encrypted = b"ENCRYPTED" in content[: content.find(b"\n")]
    try:
        key = None if encrypted else load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_signing_key(path) from error
    if encrypted:
        raise SettingsError(
            "signing-key-encrypted",
            f"The key in {path} is encrypted, which this program can't undo.",
            hint="Push without `--key`, and sign what it prints with `cosign sign --key`; or use a PEM key "
            "(`openssl genpkey -algorithm ed25519`).",
        )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise _no_signing_key(path)


def _no_signing_key(path: Path) -> SettingsError:
    return SettingsError(
        "signing-key-invalid",
        f"{path} has no private key that can be used.",
        hint="It must be ECDSA P-256 or Ed25519, as PEM: `openssl genpkey -algorithm ed25519`.",
    )


def fingerprint_of(key: "SigningKey") -> str:
    """Return the fingerprint of a private key's public half."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - slow to import

    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(der, Path()).fingerprint


def sign(repository: Repository, digest: str, key: "SigningKey", reference: Reference) -> None:
    """Sign a manifest, beside the signatures that it has.

    Raises:
        RegistryError: when the registry does not take the signature.
    """
    named = f"{reference.registry}/{reference.name}"
    critical = {
        "identity": {"docker-reference": named},
        "image": {"docker-manifest-digest": digest},
        "type": _KIND,
    }
    payload = json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()
    layer = {**descriptor(PAYLOAD, payload), "annotations": {SIGNATURE: b64encode(_signed(key, payload)).decode()}}
    before = repository.manifest(signature_tag(digest))
    layers = [*(_layers(before) if before else ()), layer]
    config = json.dumps(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [each.get("digest") for each in layers]},
        },
        separators=(",", ":"),
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(_CONFIG, config),
        "layers": layers,
    }
    repository.put_blob(payload)
    repository.put_blob(config)
    repository.put_manifest(signature_tag(digest), json.dumps(manifest, separators=(",", ":")).encode())


def _signed(key: "SigningKey", payload: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - slow to import
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - the same

    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(payload, ec.ECDSA(SHA256()))
    return key.sign(payload)


def copy_signatures(source: Repository, target: Repository, digest: str) -> None:
    """Copy the signatures of a manifest, which has some, from one repository to another, as they are.

    Raises:
        RegistryError: when one of them can't be asked.
        SettingsError: when there are things among them that are no signatures.
    """
    found = source.manifest(signature_tag(digest))
    try:
        document = json.loads(found.content) if found else {}
        blobs = [(str(each["digest"]), int(each["size"])) for each in (document["config"], *document["layers"])]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SettingsError(
            "bundle-signature-wrong", f"The signatures of {digest} can't be copied: they have another form."
        ) from error
    for blob, size in blobs[: _MOST_SIGNATURES + 1]:
        target.put_blob(source.blob(blob, size, MOST_MANIFEST))
    if found:
        target.put_manifest(signature_tag(digest), found.content)
