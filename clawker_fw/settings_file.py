"""Where a settings file is looked for, and which project it is for.

A command begins to look at its stack while the settings are still being read, so what it needs for that is read
here, with nothing that takes long to import. `settings.py` reads the file properly.
"""

import re
from pathlib import Path

from clawker_fw.errors import SettingsError

FILE_NAME = "clawker-fw.yaml"
DEFAULT_PROJECT = "clawker"
PROJECT_NAME = r"[a-z0-9][a-z0-9_-]{0,39}"
PROJECT_FORM = "a project's name is 1 to 40 of a-z, 0-9, - and _, and begins with a-z or 0-9"

_PROJECT_LINE = re.compile(r"^project[ \t]*:(?P<value>.*)$", re.MULTILINE)
_PROJECT_VALUE = re.compile(rf"""[ \t]*(?P<quote>['"]?)(?P<name>{PROJECT_NAME})(?P=quote)[ \t]*(#.*)?""")


def find(named: Path | None) -> tuple[Path | None, str]:
    """Return the settings file, if there is one, and where it was found: `""` for one that was named.

    Raises:
        SettingsError: when it can't be told whether there is one.
    """
    if named:
        return named, ""
    here = Path(FILE_NAME)
    if _is_there(here):
        return here, "the current folder"
    users = users_file()
    return (users, "the user's config folder") if _is_there(users) else (None, "the environment")


def users_file() -> Path:
    """Return where a user's own settings file is."""
    import platformdirs  # noqa: PLC0415 - most settings files lie in the current folder

    return platformdirs.user_config_path("clawker-fw") / FILE_NAME


def project(named: Path | None) -> str:
    """Return the project that the settings file is for.

    Raises:
        SettingsError: when the file can't be read, or says it in another way than in a line of its own.
    """
    path, _ = find(named)
    try:
        text = path.read_text(encoding="utf-8") if path else ""
    except FileNotFoundError:
        return DEFAULT_PROJECT
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "settings-unreadable",
            f"{path} can't be read, so it is not known which project it is for: {error}.",
            hint="Name the project with --project.",
        ) from error
    line = _PROJECT_LINE.search(text)
    if line is None:
        return DEFAULT_PROJECT
    value = _PROJECT_VALUE.fullmatch(line["value"].rstrip("\r"))
    if value is None:
        number = text.count("\n", 0, line.start()) + 1
        raise SettingsError(
            "settings-invalid",
            f"{path}, line {number}: `project` must be a name in its line: {PROJECT_FORM}.",
            hint=f"Write it as `project: {DEFAULT_PROJECT}`.",
        )
    return value["name"]


def _is_there(path: Path) -> bool:
    """Say whether there is such a file; where that can't be told, there may be."""
    try:
        return path.exists()
    except OSError as error:
        raise SettingsError("settings-unreadable", f"{path} can't be read: {error}.") from error
