"""Finds the settings file, and reads only the project from it.

Commands that need only the project work with any valid YAML, whatever else is wrong with the settings.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import platformdirs
import yaml

from clawker_fw.errors import SettingsError
from clawker_fw.settings.document import entries
from clawker_fw.settings.files import bounded, may_exist, text_of

FILE_NAME = "clawker-fw.yaml"

DEFAULT_PROJECT = "clawker"
PROJECT_NAME = r"[a-z0-9][a-z0-9_-]{0,39}"
PROJECT_FORM = "a project name has 1 to 40 characters of a-z, 0-9, - and _, and starts with a-z or 0-9"
GROUP_NAME = r"[a-z0-9][a-z0-9_-]{0,19}"
GROUP_FORM = "a group's name has 1 to 20 characters of a-z, 0-9, - and _, and starts with a-z or 0-9"


def find(named: Path | None) -> tuple[Path | None, str]:
    """Return the settings file, if any, and where it was found, in words ("" if the user named it)."""
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


def stack_of(project: str, group: str | None) -> str:
    """Return the name of a group's stack, or the project without a group.

    Raises:
        SettingsError: if both names together are too long.
    """
    name = f"{project}-{group}" if group else project
    if not re.fullmatch(PROJECT_NAME, name):
        raise SettingsError(
            "settings-invalid",
            f"The stack of group {group} would be called {name}, which is too long: {PROJECT_FORM}.",
            hint="Choose a shorter name for the group or the project.",
        )
    return name


def project_of(named: Path | None, default: str = DEFAULT_PROJECT) -> str:
    """Return the project in the settings file, or the default if the file names none.

    Raises:
        SettingsError: when the file can't be read, is not YAML, or its `project` is invalid.
    """
    path, values = _top_level(named, "project")
    if not values or values[0].value == "":
        return default
    if len(values) > 1 or not isinstance(values[0].value, str) or not re.fullmatch(PROJECT_NAME, values[0].value):
        raise SettingsError(
            "settings-invalid",
            f"{path}, line {values[-1].start_mark.line + 1}: `project` must be one name: {PROJECT_FORM}.",
            hint=f"Write it as `project: {DEFAULT_PROJECT}`.",
        )
    return values[0].value


def groups_of(named: Path | None) -> tuple[str, ...]:
    """Return the groups in the settings file in their order. Their settings may be invalid.

    Raises:
        SettingsError: when the file can't be read or is not YAML.
    """
    _, values = _top_level(named, "groups")
    groups = values[0].value if values and isinstance(values[0], yaml.MappingNode) else ()
    return tuple(str(key.value) for key, _ in groups)


def _top_level(named: Path | None, name: str) -> tuple[Path | None, Sequence[yaml.Node]]:
    """Return the settings file, and the values of a top-level key in it: several if it is repeated."""
    path, _ = find(named)
    if path is None:
        return None, ()
    try:
        content = bounded(path)
    except FileNotFoundError:
        return path, ()
    except OSError as error:
        raise SettingsError(
            "settings-unreadable",
            f"{path} can't be read, so its project is unknown: {error}.",
            hint="Name the project with --project.",
        ) from error
    try:
        return path, [value for key, value in entries(text_of(content, path), str(path)) if key.value == name]
    except SettingsError as error:
        raise SettingsError(
            error.code,
            error.message,
            context=["so the project of the stack is unknown"],
            hint="Correct that line, or name the stack with --project.",
        ) from error
