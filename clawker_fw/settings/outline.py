"""What a settings file names besides itself: the files that it includes, its bundle, and the keys for bundles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clawker_fw.errors import SettingsError
from clawker_fw.settings.bundles.reference import PREFIX
from clawker_fw.settings.document import SettingsDocument

INCLUDE, SETTINGS, KEYS = "include", "settings", "bundle_keys"


@dataclass(frozen=True, slots=True)
class Outline:
    """What a settings file names. `includes` are as it names them, each with its place.

    `settings` is the reference of a bundle, or empty, at `settings_at`. `keys` are files with public keys,
    relative to this file.
    """

    includes: Mapping[str, str]
    settings: str
    settings_at: str
    keys: Sequence[str]


def outline_of(document: SettingsDocument) -> Outline:
    """Return the outline of a settings file.

    Raises:
        SettingsError: when it names something in a wrong way.
    """
    return Outline(included(document), _delegated(document), document.place((SETTINGS,)), _bundle_keys(document))


def included(document: SettingsDocument) -> Mapping[str, str]:
    """Return the files and bundles that a document includes, as it names them, each with its place."""
    names = _texts(document, INCLUDE, "a list of files", "[team.yaml]")
    return {name: document.place((INCLUDE, position)) for position, name in enumerate(names)}


def _bundle_keys(document: SettingsDocument) -> Sequence[str]:
    """Return the files with keys for bundles that a document names."""
    return _texts(document, KEYS, "a list of files with public keys", "[cosign.pub]")


def _texts(document: SettingsDocument, key: str, what: str, example: str) -> Sequence[str]:
    names = document.values.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(
            "settings-invalid",
            f"{document.place((key,))}: `{key}` must be {what}.",
            hint=f"Write it as `{key}: {example}`.",
        )
    return names


def _delegated(document: SettingsDocument) -> str:
    """Return the reference of the bundle that a document takes its settings from, or nothing."""
    reference = document.values.get(SETTINGS, "")
    if not isinstance(reference, str) or (SETTINGS in document.values and not reference.startswith(PREFIX)):
        raise SettingsError(
            "settings-invalid",
            f"{document.place((SETTINGS,))}: `{SETTINGS}` must be a bundle in a registry.",
            hint=f"Write it as `{SETTINGS}: {PREFIX}REGISTRY/NAME:TAG`. Other files are named by `include`.",
        )
    return reference
