"""Files in a container's volume."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class File:
    """A file. `owner` is its user and group as seen in the container.

    The content of a `secret` never appears in a finding, a diff, a label or a log, and no file's content appears
    in its `repr` or in tracebacks. Comparisons ignore `secret`, because a file read from a container does not
    tell.
    """

    content: bytes = dataclasses.field(repr=False)
    mode: int
    owner: tuple[int, int]
    secret: bool = dataclasses.field(default=False, compare=False)

    def __repr__(self) -> str:
        """Return text without the content."""
        kind = "secret" if self.secret else f"{len(self.content)} bytes"
        return f"File({kind}, mode {self.mode:04o}, owner {self.owner})"

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the content in the engine's form. A program has 12 MB, so it is computed once."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    def saying(self, content: bytes) -> "File":
        """Return the same file with other content."""
        return dataclasses.replace(self, content=content)


Files = Mapping[str, File]
"""Files by their path in the volume, separated by `/`."""
