"""Files in a container's volume."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """A file. `owner` is its user and group as seen in the container.

    The content of a `secret` never appears in a finding, a diff, a label or a log. The `repr` of a file never
    contains its content, so tracebacks don't either. `secret` is ignored by comparisons, because a file that is
    read from a container does not say whether it is one.
    """

    content: bytes = dataclasses.field(repr=False)
    mode: int
    owner: tuple[int, int]
    secret: bool = dataclasses.field(default=False, compare=False)

    def __repr__(self) -> str:
        """Return a text without the content."""
        kind = "secret" if self.secret else f"{len(self.content)} bytes"
        return f"File({kind}, mode {self.mode:04o}, owner {self.owner})"

    def saying(self, content: bytes) -> "File":
        """Return the same file with other content."""
        return dataclasses.replace(self, content=content)


Files = Mapping[str, File]
"""Files by their path relative to the volume's root, separated by `/`."""
