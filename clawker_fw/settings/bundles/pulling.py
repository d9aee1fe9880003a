"""Pulling a bundle: by digest, verified before anything of it is read, and checked as settings."""

from collections.abc import Sequence
from dataclasses import dataclass

from clawker_fw.errors import SettingsError
from clawker_fw.settings.bundles.artifact import MOST_TEXT, read_manifest
from clawker_fw.settings.bundles.keys import PublicKey
from clawker_fw.settings.bundles.reference import Reference
from clawker_fw.settings.bundles.registry import Manifest, Repository
from clawker_fw.settings.bundles.signature import verified
from clawker_fw.settings.bundles.store import Bundle


@dataclass(frozen=True, slots=True)
class Pulled:
    """A bundle that has been pulled and verified, with its manifest as it is."""

    bundle: Bundle
    text: str
    manifest: bytes


def found(repository: Repository, reference: Reference, digest: str = "") -> Manifest:
    """Return the manifest of a bundle: the one with a digest, or the one that the reference names.

    Raises:
        SettingsError: when there is none.
        RegistryError: when the registry can't be asked.
    """
    manifest = repository.manifest(digest or reference.manifest)
    if manifest is None:
        raise absent(reference)
    return manifest


def absent(reference: Reference) -> SettingsError:
    """Return the error that there is no bundle under a reference."""
    return SettingsError(
        "bundle-absent",
        f"The registry has no {reference}.",
        hint="Check the name and the tag. `clawker-fw bundle push FILE REFERENCE` makes it.",
    )


def pulled(repository: Repository, reference: Reference, keys: Sequence[PublicKey], digest: str = "") -> Pulled:
    """Pull and verify a bundle: the one with a digest, or the one that the reference names.

    Raises:
        SettingsError: when there is none, or it is not signed by one of these keys, or is none of settings.
        RegistryError: when the registry can't be asked, or sends something else.
    """
    manifest = found(repository, reference, digest)
    key = verified(repository, manifest.digest, keys, reference)
    artifact = read_manifest(manifest.content, reference)
    content = repository.blob(artifact.layer, artifact.size, MOST_TEXT)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise SettingsError("bundle-invalid", f"{reference} is not a text in UTF-8.") from error
    bundle = Bundle(str(reference), manifest.digest, artifact.layer, artifact.created, key.fingerprint)
    return Pulled(bundle, text, manifest.content)
