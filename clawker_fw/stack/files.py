"""Files in a sibling's volume: their modes and owners, and how to read records.

Files belong to root, and the unprivileged program can only read them. Secrets belong to an otherwise unused user,
and only the program's group can read them: root in the container lacks the capability, and `fwctl` acts as their
owner. The program's own user differs at every start.
"""

import json
import math
from typing import Any

from clawker_fw.model.files import File

ROOT = (0, 0)

READERS = (65532, 65532)
"""The owner of secrets, and the group of a sibling's program (`Readers` in `go/internal/users`)."""

SIGNERS = (65531, 65531)
"""The owner of the signer's keys, and the group that only the signer is in (`Signers` in `go/internal/users`)."""

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


AT_REST = File(b"", 0o600, SIGNERS, secret=True)
"""The mode and owner of secrets that outlive a container. The signer gets the open file."""

RECORD = public(b"")
"""The mode and owner of records."""


def canonical(value: object) -> bytes:
    """Return a value as JSON in canonical form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def read_record(content: bytes | str) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON from a container or a network, which may have been changed.

    Raises:
        ValueError: if it is invalid, or has non-finite numbers or deep nesting, which would fail elsewhere.
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
