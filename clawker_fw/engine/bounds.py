"""How much of an engine's answer is read at most: something that looks like an engine may send without end.

The memory for an answer is bounded by these figures, however much arrives. What is read as it arrives, like a log,
is bounded by its pieces. An error about it is a `ConnectionError`, as if the connection had broken.
"""

ANSWER = 64 << 20
"""An answer in JSON. A container takes 2 KiB in the engine's longest list."""

PIECE = 16 << 20
"""A frame of a log or a program's output, and a chunk of HTTP. Engines send 32 KiB."""

LINE = 4 << 20
"""A line of events, or of the progress of a pull."""

HELPER = 64 << 20
"""A line that `fwctl` answers with."""

COMPLAINT = 64 << 10
"""The words of an error."""

VOLUME = 512 << 20
"""All files of a container's volume. A sibling's program and rules take less than a tenth of it."""

ENTRIES = 100_000
"""Files and folders of a volume."""


def too_long(what: str, most: int) -> ConnectionError:
    """Return the error that something is longer than what is read of it."""
    return ConnectionError(f"It sent more than {most >> 10:,} KiB as {what}")
