"""Reading the settings from their sources.

Precedence: command line, environment (`CLAWKER_FW_OTEL__INFRA_PORT`), file, default. In place of a file, one
variable may have its text (`CLAWKER_FW_SETTINGS`). An unreadable file is an error and never means "no rules".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw.errors import SettingsError
from clawker_fw.settings.bundles.store import Bundle
from clawker_fw.settings.bundles.store import Kept as KeptBundle
from clawker_fw.settings.environment import SETTINGS_VARIABLE
from clawker_fw.settings.find import find, given_text
from clawker_fw.settings.loaded import Loaded
from clawker_fw.settings.sources import Named, Resolve, Source, in_variable, named_bundles, sources
from clawker_fw.settings.validation import validated

if TYPE_CHECKING:
    from clawker_fw.settings.bundles.taking import Bundles


def load_settings(named: Path | None, environment: Mapping[str, str], resolve: Resolve | None = None) -> Loaded:
    """Read the settings. If they are the same as the last time in this process, the same object is returned.

    `named` is the file that the user named by option or `CLAWKER_FW_CONFIG`. Without it, the search path is used.
    `resolve` returns bundles.

    Raises:
        SettingsError: when there is neither a file nor a variable, or when something in them is wrong.
    """
    return validated(*read_settings(named, environment, resolve), environment).loaded


def read_settings(
    named: Path | None,
    environment: Mapping[str, str],
    resolve: Resolve | None = None,
) -> tuple[tuple[Source, ...], str]:
    """Return what settings are read from that the user named or that are found, and where they were found.

    Settings that a variable has as a whole come before any file that would be found.

    Raises:
        SettingsError: when something can't be read, or both a file and the variable are given.
    """
    text = given_text(named, environment)
    if text is not None:
        return in_variable(text, resolve), f"the variable {SETTINGS_VARIABLE}"
    source, found = find(named)
    return sources(source, resolve) if source else (), found


def bundles_named(named: Path | None, environment: Mapping[str, str]) -> Named:
    """Return the bundles that the settings name, and the keys for them. No registry is asked.

    Raises:
        SettingsError: when a file can't be read.
    """
    text = given_text(named, environment)
    return named_bundles(None, text) if text is not None else named_bundles(find(named)[0])


def check_with(
    named: Path | None, environment: Mapping[str, str], bundles: "Bundles", bundle: Bundle, text: str
) -> None:
    """Check that settings would be valid with another bundle in force.

    Raises:
        SettingsError: otherwise.
    """

    def resolve(reference: str, keys: Sequence[Path]) -> KeptBundle:
        if reference == bundle.reference:
            return KeptBundle(bundle, text, 0.0)
        found = bundles.kept(reference, keys)
        if found is None:
            raise _UnknownError("bundle-unavailable", reference)
        return found

    try:
        validated(*read_settings(named, environment, resolve), environment)
    except _UnknownError:
        return  # another bundle is not known yet: all are checked when it is


class _UnknownError(SettingsError):
    """A bundle is not kept."""
