"""The public suffix list: names under which anybody can register (https://publicsuffix.org).

A rule for all of `.github.io` would allow whatever anybody publishes there, and `co.uk` is not a host. The list
comes with the package `publicsuffixlist`, but is parsed here: every command reads the rules, and the package takes
15 times as long to build its tables.
"""

import functools
import importlib.util
from pathlib import Path

import idna

_PRIVATE = b"// ===BEGIN PRIVATE DOMAINS==="


def is_registry(name: str) -> bool:
    """Whether a name is a suffix of a domain registry, such as `com` or `co.uk`, and so not a host."""
    return _is_listed(name, _lists()[0])


def is_shared(name: str) -> bool:
    """Whether anybody can register below this name: a registry's suffix, or a private one such as `github.io`."""
    registries, private = _lists()
    return _is_listed(name, registries) or _is_listed(name, private)


def place() -> Path:
    """Return where the list is.

    Raises:
        ModuleNotFoundError: when the package is not installed.
    """
    package = importlib.util.find_spec("publicsuffixlist")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The package publicsuffixlist is not installed.")
    return Path(package.origin).with_name("public_suffix_list.dat")


def _is_listed(name: str, lines: set[bytes]) -> bool:
    """Whether a name in lower case is a public suffix.

    A line `*.ck` makes public suffixes of `ck` and of every name directly below it, except those with a `!` line.
    """
    text = _unicode(name).encode()
    _, _, above = text.partition(b".")
    return (text in lines or b"*." + text in lines or b"*." + above in lines) and b"!" + text not in lines


def _unicode(name: str) -> str:
    """Return a name in the list's form: international names in Unicode."""
    if "xn--" not in name:
        return name
    try:
        return idna.decode(name)
    except idna.IDNAError:
        return name


@functools.cache
def _lists() -> tuple[set[bytes], set[bytes]]:
    """Return the lines of the list's two sections. Comment lines match no name, so they may stay in."""
    content = place().read_bytes()
    registries, _, private = content.partition(_PRIVATE)
    return set(registries.split(b"\n")), set(private.split(b"\n"))
