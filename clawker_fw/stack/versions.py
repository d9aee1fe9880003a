"""Versions of programs, read from image references and from what the programs report."""

import re

_OF_BUILD = re.compile(r"(?<![\w.])(\d+\.\d+\.\d+)(?![\w.])")
"""Envoy reports `COMMIT/1.40.0/Clean/RELEASE/BoringSSL`, CoreDNS `CoreDNS-1.14.0`."""

_OF_TAG = re.compile(r":v?(\d+\.\d+\.\d+)(?![\w.])[^/:]*$")


def of_build(build: str) -> str | None:
    """Return the version in what a program reports, or None."""
    found = _OF_BUILD.search(build)
    return found[1] if found else None


def of_reference(reference: str) -> str | None:
    """Return the version in an image's tag, or None."""
    found = _OF_TAG.search(reference.partition("@")[0])
    return found[1] if found else None


def is_older(version: str, other: str) -> bool:
    """Whether a version is older than another one."""
    return _numbers(version) < _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
