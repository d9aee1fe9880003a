"""Who may read the files in a sibling's volume, and whose they are. Nothing else decides a mode or an owner.

Everything is root's, and the program, which runs as nobody, may read it and change nothing. A secret is the
program's own, and nobody else may read it. Not even the container's root may, which lacks the capability for that:
`fwctl` reads it as the program's user.
"""

from clawker_fw.model import File

ROOT = (0, 0)

PROGRAM = (65532, 65532)
"""The user and group that a sibling's program runs as (`unprivileged` in `go/fwctl/serve.go`)."""

_READ_BY_ALL = 0o004

FOLDER = File(b"", 0o755, ROOT)
"""What every folder is like, the volume's own too."""


def public(content: bytes) -> File:
    """Return a file that everybody in the container may read."""
    return File(content, 0o644, ROOT)


def executable(content: bytes) -> File:
    """Return a program."""
    return File(content, 0o755, ROOT)


def secret(content: bytes) -> File:
    """Return a file for the program's eyes alone."""
    return File(content, 0o400, PROGRAM, secret=True)


def found(content: bytes, mode: int, owner: tuple[int, int]) -> File:
    """Return a file as it is in a container. What not everybody may read there is taken for a secret."""
    return File(content, mode, owner, secret=not mode & _READ_BY_ALL)


RECORD = public(b"")
"""What the records that are kept in a volume are like, whatever they say."""
