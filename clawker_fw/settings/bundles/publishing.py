"""Pushing a file of settings as a bundle, and promoting one: a copy under another tag, with its signatures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw.errors import SettingsError
from clawker_fw.settings.bundles.artifact import EMPTY, MOST_TEXT, descriptor, manifest_of
from clawker_fw.settings.bundles.keys import PublicKey
from clawker_fw.settings.bundles.pulling import Pulled, pulled
from clawker_fw.settings.bundles.reference import Reference
from clawker_fw.settings.bundles.registry import Repository, digest_of
from clawker_fw.settings.bundles.signature import copy_signatures, fingerprint_of, sign
from clawker_fw.settings.bundles.store import Bundle
from clawker_fw.settings.document import document_of
from clawker_fw.settings.include import require_central
from clawker_fw.settings.sources import Source
from clawker_fw.settings.validation import validated

if TYPE_CHECKING:
    from clawker_fw.settings.bundles.signature import SigningKey
    from clawker_fw.settings.loaded import Loaded

_PRIVATE_KEY = "PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Text:
    """The text of a bundle that is to be pushed, and what the settings in it are."""

    content: bytes
    loaded: "Loaded"


def checked(path: Path) -> Text:
    """Read a file that is to be pushed: valid settings, with nothing that only a host may say.

    Raises:
        SettingsError: when it has not.
    """
    from clawker_fw.settings.files import read_text  # noqa: PLC0415 - only a push needs it

    text = read_text(path)
    content = text.encode()
    if len(content) > MOST_TEXT:
        raise SettingsError("bundle-too-large", f"{path} has more than {MOST_TEXT:,} octets.")
    if _PRIVATE_KEY in text:
        raise SettingsError(
            "bundle-with-secret",
            f"{path} has a private key in it, which everybody who can pull the bundle could read.",
            hint="Rules name secrets by their names (`inject`); each host declares them in a file of its own.",
        )
    return Text(content, settings_in(Source(path, text)))


def settings_in(source: Source) -> "Loaded":
    """Return the settings of a bundle, or of what will be one: valid by themselves, with nothing of a host's.

    Raises:
        SettingsError: when they are not.
    """
    require_central(document_of(source.text, source.name))
    return validated((source,), "", {}).loaded


def push(
    repository: Repository, text: bytes, reference: Reference, created: float, key: "SigningKey | None"
) -> Bundle:
    """Push a text as a bundle under a tag, signed if there is a key. The tag is moved last.

    Raises:
        RegistryError: when the registry does not take it.
    """
    created = round(created, 6)
    manifest = manifest_of(text, created)
    digest = digest_of(manifest)
    repository.put_blob(EMPTY)
    repository.put_blob(text)
    if key is not None:
        repository.put_manifest(digest, manifest)
        sign(repository, digest, key, reference)
    repository.put_manifest(reference.tag, manifest)
    signer = fingerprint_of(key) if key is not None else ""
    return Bundle(str(reference), digest, descriptor("", text)["digest"], created, signer)


def promote(
    source: tuple[Repository, Reference],
    target: tuple[Repository, Reference],
    keys: Sequence[PublicKey],
    check: Callable[[str, Bundle], object],
) -> Pulled:
    """Copy a bundle, byte for byte, to a tag, with its signatures. It is verified first, and never signed here.

    `check` raises SettingsError if its text is not valid.

    Raises:
        SettingsError: when there is none, or it is not signed by one of these keys.
        RegistryError: when a registry can't be asked, or does not take it.
    """
    (whence, original), (whither, wanted) = source, target
    found = pulled(whence, original, keys)
    check(found.text, found.bundle)
    if (original.host, original.name) != (wanted.host, wanted.name):
        whither.put_blob(EMPTY)
        whither.put_blob(found.text.encode())
        whither.put_manifest(found.bundle.digest, found.manifest)
        copy_signatures(whence, whither, found.bundle.digest)
    whither.put_manifest(wanted.tag, found.manifest)
    return replace(found, bundle=replace(found.bundle, reference=str(wanted)))
