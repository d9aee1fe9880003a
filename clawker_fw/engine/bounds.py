"""Limits on an engine's answers, because something that looks like an engine may send without end.

They bound the memory for an answer. Streams such as logs are bounded piece by piece. Exceeding a limit is a
`ConnectionError`, as if the connection had broken.
"""

ANSWER = 64 << 20
"""A JSON answer. The longest is a list, with 2 KiB per container."""

PIECE = 16 << 20
"""A frame of a log or a program's output, or a chunk of HTTP. Engines send 32 KiB."""

LINE = 4 << 20
"""A line of events, or of a pull's progress."""

HELPER = 64 << 20
"""A line of an answer from `fwctl`."""

COMPLAINT = 64 << 10
"""The text of an error."""

VOLUME = 512 << 20
"""All files of a container's volume. Our containers use less than a tenth of it."""

ENTRIES = 100_000
"""Files and folders of a volume."""


def too_long(what: str, most: int) -> ConnectionError:
    """Return the error that something exceeds its limit."""
    return ConnectionError(f"It sent more than {most >> 10:,} KiB as {what}")
