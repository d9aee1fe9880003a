"""What a settings file names besides itself: the files that it includes, its bundle, and the keys for bundles.

To read that takes YAML, which is slow to import. So what was read of a text is kept beside the settings that were
checked last, and used for the same text of the same file.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clawker_fw.private_files import make_private, write_private
from clawker_fw.settings.bundles.reference import PREFIX

INCLUDE, SETTINGS, KEYS = "include", "settings", "bundle_keys"

_FORM = 1
"""The version of what is kept."""

_MOST_KEPT = 20


@dataclass(frozen=True, slots=True)
class Outline:
    """What a settings file names. `includes` are as it names them, each with its place.

    `settings` is the reference of a bundle, or empty, at `settings_at`. `keys` are files with public keys,
    relative to this file.
    """

    includes: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    settings_at: str = ""
    keys: tuple[str, ...] = ()


NOTHING = Outline()


@dataclass(frozen=True, slots=True)
class Outlines:
    """The outlines of the texts that were read last, in one file; ignored if it can't be used."""

    path: Path

    def of(self, text: str, path: Path) -> Outline:
        """Return the outline of a settings file.

        Raises:
            SettingsError: when it is not YAML, or names something in a wrong way.
        """
        name, kept = hashlib.sha256(f"{_FORM}\n{path}\n{text}".encode()).hexdigest(), self._read()
        with suppress(TypeError, LookupError, ValueError, AttributeError):
            found: Any = kept[name]
            return Outline(dict(found["includes"]), found["settings"], found["settings_at"], tuple(found["keys"]))
        outline = read_outline(text, path)
        kept = dict([*kept.items(), (name, asdict(outline))][-_MOST_KEPT:])
        with suppress(OSError):
            make_private(self.path.parent)
            write_private(self.path, json.dumps(kept).encode())
        return outline

    def _read(self) -> dict[str, dict[str, object]]:
        with suppress(OSError, ValueError):
            found = json.loads(self.path.read_bytes())
            return found if isinstance(found, dict) else {}
        return {}


def outline_of(text: str, path: Path, kept: Outlines | None) -> Outline:
    """Return the outline of a settings file. Whether it can name anything is told from its text, without YAML.

    Raises:
        SettingsError: when it is not YAML, or names something in a wrong way.
    """
    if INCLUDE not in text and PREFIX not in text and KEYS not in text:
        return NOTHING
    return kept.of(text, path) if kept else read_outline(text, path)


def read_outline(text: str, path: Path) -> Outline:
    """Read the outline of a settings file.

    Raises:
        SettingsError: when it is not YAML, or names something in a wrong way.
    """
    from clawker_fw.settings.document import document_of  # noqa: PLC0415 - YAML is slow to import
    from clawker_fw.settings.include import bundle_keys, delegated, included  # noqa: PLC0415 - the same

    document = document_of(text, path)
    return Outline(
        included(document), delegated(document), document.place((SETTINGS,)), tuple(bundle_keys(document))
    )
