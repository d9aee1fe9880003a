"""The files in a container's volume, as values: what a file says, by whom it may be read, and whose it is."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """A file. `owner` is its user and group, as the container knows them.

    What a `secret` says is told to nobody: not in a finding, a diff, a label or a log. No file's content is in its
    `repr`, so it is in no traceback either. Two files are equal when they are the same to whoever reads them;
    what is read from a container does not say whether it is meant to be a secret.
    """

    content: bytes = dataclasses.field(repr=False)
    mode: int
    owner: tuple[int, int]
    secret: bool = dataclasses.field(default=False, compare=False)

    def __repr__(self) -> str:
        """Return what anybody may know of it."""
        kind = "secret" if self.secret else f"{len(self.content)} bytes"
        return f"File({kind}, mode {self.mode:04o}, owner {self.owner})"

    def saying(self, content: bytes) -> "File":
        """Return the same file with another content."""
        return dataclasses.replace(self, content=content)


Files = Mapping[str, File]
"""Files by their path relative to the volume's root, with `/` between parts."""
