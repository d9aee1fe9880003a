"""Finds the settings file, and reads the project from it.

Commands that need nothing but the project work with settings that can't be used. `document.py` reads the whole
file.
"""

import re
from pathlib import Path

import platformdirs

from clawker_fw.errors import SettingsError
from clawker_fw.settings.files import bounded, may_exist

FILE_NAME = "clawker-fw.yaml"

DEFAULT_PROJECT = "clawker"
PROJECT_NAME = r"[a-z0-9][a-z0-9_-]{0,39}"
PROJECT_FORM = "a project name has 1 to 40 characters of a-z, 0-9, - and _, and starts with a-z or 0-9"

_PROJECT_LINE = re.compile(r"^project[ \t]*:(?P<value>.*)$", re.MULTILINE)
_PROJECT_VALUE = re.compile(rf"""[ \t]*(?P<quote>['"]?)(?P<name>{PROJECT_NAME})(?P=quote)[ \t]*(#.*)?""")


def find(named: Path | None) -> tuple[Path | None, str]:
    """Return the settings file, if there is one, and where it was found, in words; empty if it was named."""
    if named:
        return named, ""
    here = Path(FILE_NAME)
    if may_exist(here):
        return here, "the current folder"
    users = users_file()
    return (users, "the user's config folder") if may_exist(users) else (None, "the environment")


def users_file() -> Path:
    """Return the path of the user's own settings file."""
    return platformdirs.user_config_path("clawker-fw") / FILE_NAME


def project_of(named: Path | None) -> str:
    """Return the project in the settings file.

    Raises:
        SettingsError: when the file can't be read, or when `project` is not a plain name on a line of its own.
    """
    path, _ = find(named)
    try:
        text = (bounded(path).decode("utf-8-sig") if path else "").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        return DEFAULT_PROJECT
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "settings-unreadable",
            f"{path} can't be read, so its project is unknown: {error}.",
            hint="Name the project with --project.",
        ) from error
    line = _PROJECT_LINE.search(text)
    if line is None:
        return DEFAULT_PROJECT
    value = _PROJECT_VALUE.fullmatch(line["value"])
    if value is None:
        number = text.count("\n", 0, line.start()) + 1
        raise SettingsError(
            "settings-invalid",
            f"{path}, line {number}: `project` must be a plain name on its line: {PROJECT_FORM}.",
            hint=f"Write it as `project: {DEFAULT_PROJECT}`.",
        )
    return value["name"]
