"""Versions of programs, as images' references and the programs themselves tell them."""

import re

_OF_BUILD = re.compile(r"(?<![\w.])(\d+\.\d+\.\d+)(?![\w.])")
"""In Envoy's words `COMMIT/1.40.0/Clean/RELEASE/BoringSSL`, in CoreDNS's `CoreDNS-1.14.0`."""

_OF_TAG = re.compile(r":v?(\d+\.\d+\.\d+)(?![\w.])[^/:]*$")


def of_build(build: str) -> str | None:
    """Return the version in a program's own words; None when they name none."""
    found = _OF_BUILD.search(build)
    return found[1] if found else None


def of_reference(reference: str) -> str | None:
    """Return the version in an image's tag; None when there is none."""
    found = _OF_TAG.search(reference.partition("@")[0])
    return found[1] if found else None


def is_older(version: str, other: str) -> bool:
    """Whether a version comes before another one."""
    return _numbers(version) < _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
