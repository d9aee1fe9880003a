"""Files in a sibling's volume: their modes and owners, which are decided here alone, and how records are read.

Files belong to root, and the program, which runs unprivileged, can read but not change them. A secret belongs to a
user that nobody is, and only the program's group can read it. Even root in the container can't, because it lacks
the capability; `fwctl` reads secrets as their owner. (The program's own user is another one at every start.)
"""

import json
import math
from typing import Any

from clawker_fw.model.files import File

ROOT = (0, 0)

READERS = (65532, 65532)
"""The owner of secrets, and the group that a sibling's program is in (`Readers` in `go/internal/users`)."""

SIGNERS = (65531, 65531)
"""The owner of the signer's keys, and the group that it alone is in (`Signers` in `go/internal/users`)."""

_READ_BY_ALL = 0o004

FOLDER = File(b"", 0o755, ROOT)
"""The mode and owner of every folder, including the volume itself."""


def public(content: bytes) -> File:
    """Return a file that everyone in the container may read."""
    return File(content, 0o644, ROOT)


def executable(content: bytes) -> File:
    """Return an executable file."""
    return File(content, 0o755, ROOT)


def secret(content: bytes) -> File:
    """Return a file that only the program may read."""
    return File(content, 0o440, READERS, secret=True)


def signers(content: bytes) -> File:
    """Return a file that only the signer may read."""
    return File(content, 0o440, SIGNERS, secret=True)


def found(content: bytes, mode: int, owner: tuple[int, int]) -> File:
    """Return a file that was read from a container. Unless everyone may read it there, it counts as a secret."""
    return File(content, mode, owner, secret=not mode & _READ_BY_ALL)


AT_REST = File(b"", 0o600, SIGNERS, secret=True)
"""The mode and owner of secrets that outlive a container, whatever they are. The signer gets the file opened."""

RECORD = public(b"")
"""The mode and owner of records, whatever their content."""


def read_record(content: bytes | str) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON from a container or a network, which somebody may have changed.

    Raises:
        ValueError: when it can't be read. Numbers without end and deep nesting would fail elsewhere otherwise.
    """
    try:
        return json.loads(content, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number
