"""The last good settings, kept for the next watcher: the texts that they were read from, to be checked anew.

They are in a file of the private folder, durably, without any secret's value. Nothing is trusted that others could
have written: the file has to be the user's own, and whether an agent can write it is judged with the stack.
"""

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Base64Bytes, TypeAdapter

from clawker_fw.private_files import locked, state_folder, write_private
from clawker_fw.settings.environment import Variables
from clawker_fw.settings.sources import Source

_MOST_OCTETS = 64 << 20


@dataclass(frozen=True, slots=True)
class SecretsText:
    """The file that says which secrets there are, as it was read. It has no value of any."""

    path: Path
    content: Base64Bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Texts:
    """Everything that decides what is desired: settings, variables, secrets' sources, further authorities.

    `applied` are the digests of the settings that the stack had recorded as applied.
    """

    sources: tuple[Source, ...]
    found: str
    variables: Variables
    secrets: SecretsText | None = None
    authorities: Base64Bytes = b""
    applied: frozenset[str] = frozenset()
    form: Literal[1] = 1
    """Of the file. Another one is not read."""


_FORM = TypeAdapter(Texts)


def path_of(project: str) -> Path:
    """Return where a watcher keeps the last good settings of a project."""
    return state_folder() / project / "last-good.json"


def write(path: Path, texts: Texts) -> None:
    """Keep settings in a file.

    Raises:
        OSError: when they can't be written.
    """
    with locked(path.parent, writing=True):
        write_private(path, json.dumps(_FORM.dump_python(texts, mode="json")).encode())


def read(path: Path) -> Texts | None:
    """Return what was kept, or None if nothing was, or nothing that this release reads and others can't write.

    Raises:
        OSError: when it can't be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        private = found.st_uid in {0, os.geteuid()} and not found.st_mode & 0o077
        if not (private and stat.S_ISREG(found.st_mode)):
            return None
        content = file.read(_MOST_OCTETS)
    try:
        return _FORM.validate_python(json.loads(content))
    except (ValueError, RecursionError):
        return None
