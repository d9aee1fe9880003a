"""Reading the settings from their sources.

Precedence: command line, environment (`CLAWKER_FW_OTEL__INFRA_PORT`), file, default. In place of a file, one
variable may have its text (`CLAWKER_FW_SETTINGS`). An unreadable file is an error and never means "no rules".
"""

from collections.abc import Mapping
from pathlib import Path

from clawker_fw.settings.environment import SETTINGS_VARIABLE
from clawker_fw.settings.find import find, given_text
from clawker_fw.settings.loaded import Loaded
from clawker_fw.settings.sources import in_variable, sources
from clawker_fw.settings.validation import validated


def load_settings(named: Path | None, environment: Mapping[str, str]) -> Loaded:
    """Read the settings. If they are the same as the last time in this process, the same object is returned.

    `named` is the file that the user named by option or `CLAWKER_FW_CONFIG`. Without it, the search path is used.
    Settings that a variable has as a whole come before any file that would be found.

    Raises:
        SettingsError: when there is neither a file nor a variable, or both are given, or when something in them is
            wrong or can't be read.
    """
    text = given_text(named, environment)
    if text is not None:
        return validated((in_variable(text),), f"the variable {SETTINGS_VARIABLE}", environment)
    source, found = find(named)
    return validated(sources(source) if source else (), found, environment)
