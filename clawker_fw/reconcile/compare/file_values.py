"""The values of a finding about a file, and the contents for its diff. Pure.

Values have only the properties that differ. They have nothing of a secret's content, not even a digest, which
would confirm a guess.
"""

from clawker_fw.model import File
from clawker_fw.stack import labels

_HIDDEN = ("another content", "this content")


def value_pair(running: File | None, desired: File | None) -> tuple[str | None, str | None]:
    """Return the running and the desired value of a finding about a file; None for a missing file."""
    if running is None or desired is None:
        return _named(running), _named(desired)
    words = attribute_pairs(running, desired)
    if running.content != desired.content:
        digests = labels.digest(running.content), labels.digest(desired.content)
        words = [_HIDDEN if running.secret or desired.secret else digests, *words]
    return ", ".join(one for one, _ in words), ", ".join(other for _, other in words)


def digest_pair(running: File, desired: File | None, digest: str, wanted: str | None) -> tuple[str, str | None]:
    """Return the values for contents known only by their digests, in a file that should be like `desired`."""
    return _HIDDEN if running.secret or (desired is not None and desired.secret) else (digest, wanted)


def attribute_pairs(running: File, desired: File) -> list[tuple[str, str]]:
    """Return the modes and owners in which two files differ, as pairs of running and desired value."""
    pairs = ((f"mode {file.mode:04o}", "owner {}:{}".format(*file.owner)) for file in (running, desired))
    return [(one, other) for one, other in zip(*pairs, strict=True) if one != other]


def contents(running: File | None, desired: File | None) -> tuple[bytes, bytes] | None:
    """Return both contents for a diff, or None if they are equal or one is a secret."""
    there = [file for file in (running, desired) if file is not None]
    one, other = (file.content if file is not None else b"" for file in (running, desired))
    return None if one == other or any(file.secret for file in there) else (one, other)


def _named(file: File | None) -> str | None:
    if file is None:
        return None
    return "a secret" if file.secret else labels.digest(file.content)
