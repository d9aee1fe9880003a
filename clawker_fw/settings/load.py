"""Reading the settings from their sources.

Precedence: command line, environment (`CLAWKER_FW_OTEL__INFRA_PORT`), file, default. In place of a file, one
variable may have its text (`CLAWKER_FW_SETTINGS`). An unreadable file is an error and never means "no rules".

Settings that are the same as the last time are not checked again, so that most commands need neither YAML nor
pydantic.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

from clawker_fw.settings.environment import SETTINGS_VARIABLE, Variables, variables
from clawker_fw.settings.find import find, given_text
from clawker_fw.settings.kept import Kept
from clawker_fw.settings.loaded import Loaded
from clawker_fw.settings.sources import Source, in_variable, sources


def load_settings(named: Path | None, environment: Mapping[str, str], kept: Kept | None = None) -> Loaded:
    """Read the settings. If they are the same as the last time in this process, the same object is returned.

    `named` is the file that the user named by option or `CLAWKER_FW_CONFIG`. Without it, the search path is used.
    `kept` has those that were checked last.

    Raises:
        SettingsError: when there is neither a file nor a variable, or when something in them is wrong.
    """
    return _loaded(*read_settings(named, environment), variables(environment), kept)


def read_settings(named: Path | None, environment: Mapping[str, str]) -> tuple[tuple[Source, ...], str]:
    """Return the files of the settings that the user named or that are found, and where they were found.

    Settings that a variable has as a whole come before any file that would be found.

    Raises:
        SettingsError: when one can't be read, or both a file and the variable are given.
    """
    text = given_text(named, environment)
    if text is not None:
        return (in_variable(text),), f"the variable {SETTINGS_VARIABLE}"
    source, found = find(named)
    return sources(source) if source else (), found


@functools.lru_cache(maxsize=1)
def _loaded(read: tuple[Source, ...], found: str, given: Variables, kept: Kept | None) -> Loaded:
    """Return the settings from the text of files and the environment. Cached, because checking may take long."""
    if kept and (known := kept.recall(read, found, given)):
        return known
    from clawker_fw.settings.validation import validated  # noqa: PLC0415 - pydantic and YAML are slow to import

    loaded = validated(read, found, dict(given)).loaded
    if kept:
        kept.remember(read, found, given, loaded)
    return loaded
