"""Versions of programs, from image references and from the programs' reports."""

import re

_OF_BUILD = re.compile(r"(?<![\w.])(\d+\.\d+\.\d+)(?![\w.])")
"""Envoy reports `COMMIT/1.40.0/Clean/RELEASE/BoringSSL`, CoreDNS `CoreDNS-1.14.0`."""

_OF_TAG = re.compile(r":v?(\d+\.\d+\.\d+)(?![\w.])[^/:]*$")

_NUMBERS = re.compile(r"\d+(\.\d+)*", re.ASCII)


def of_build(build: str) -> str | None:
    """Return the version in a program's report, or None."""
    match = _OF_BUILD.search(build)
    return match[1] if match else None


def of_reference(reference: str) -> str | None:
    """Return the version in an image's tag, or None."""
    match = _OF_TAG.search(reference.partition("@")[0])
    return match[1] if match else None


def is_older(version: str, other: str) -> bool:
    """Whether a version is older than another one. Suffixes such as `rc1` are not compared."""
    return _numbers(version) < _numbers(other)


def change(before: str | None, after: str | None) -> str:
    """Return the name of a version change: an upgrade, a downgrade, or a change if unknown."""
    if before is None or after is None or _numbers(before) == _numbers(after):
        return "change"
    return "upgrade" if is_older(before, after) else "downgrade"


def _numbers(version: str) -> tuple[int, ...]:
    match = _NUMBERS.match(version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
