"""Reading the settings from their sources.

Precedence: command line, environment (`CLAWKER_FW_OTEL__INFRA_PORT`), file, default. An unreadable file is an
error and never means "no rules".
"""

from collections.abc import Mapping
from pathlib import Path

from clawker_fw.settings.find import find
from clawker_fw.settings.loaded import Loaded
from clawker_fw.settings.sources import sources
from clawker_fw.settings.validation import validated


def load_settings(named: Path | None, environment: Mapping[str, str]) -> Loaded:
    """Read the settings. If they are the same as the last time in this process, the same object is returned.

    `named` is the file that the user named by option or `CLAWKER_FW_CONFIG`. Without it, the search path is used.

    Raises:
        SettingsError: when there are none, or when something in them is wrong or can't be read.
    """
    source, found = find(named)
    return validated(sources(source) if source else (), found, environment)
