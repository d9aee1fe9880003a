"""The last good settings: their texts, saved for the next watcher, which checks them again.

The file is in the private folder and has no secret's value. It must belong to the user, and the comparison checks
whether an agent can write it.
"""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from clawker_fw.private_files import locked, state_folder, write_private
from clawker_fw.reconcile.inputs import EarlierTexts
from clawker_fw.settings.environment import Variables
from clawker_fw.settings.sources import Source

_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts(EarlierTexts):
    """All texts that decide the desired state. `applied` are the digests of the settings recorded in the stack."""

    sources: tuple[Source, ...]
    located: str
    variables: Variables
    applied: frozenset[str] = frozenset()
    form: Literal[2] = 2
    """The format of the file. Other formats are not read."""


_FORM = TypeAdapter(Texts)


def path_of(project: str) -> Path:
    """Return the path of a project's last good settings."""
    return state_folder() / project / "last-good.json"


def write(path: Path, texts: Texts) -> None:
    """Save settings in a file. Raise OSError if they can't be written."""
    with locked(path.parent, writing=True):
        write_private(path, json.dumps(_FORM.dump_python(texts, mode="json")).encode())


def read(path: Path) -> Texts | None:
    """Return the saved settings, or None if this release can't read them or others can write them.

    Raises:
        OSError: if they can't be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        private = status.st_uid in {0, os.geteuid()} and not status.st_mode & 0o077
        if not (private and stat.S_ISREG(status.st_mode)):
            return None
        content = file.read(_MOST_BYTES)
    try:
        return _FORM.validate_python(json.loads(content))
    except (ValueError, RecursionError):
        return None
