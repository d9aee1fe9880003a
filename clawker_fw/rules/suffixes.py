"""The public suffix list: names under which anybody can register (https://publicsuffix.org).

Parsed here from the data of the package `publicsuffixlist`, because every command reads the rules and the package
takes 15 times as long to build its tables.
"""

import functools
import importlib.util
from pathlib import Path

import idna

_PRIVATE = b"// ===BEGIN PRIVATE DOMAINS==="


def is_registry(name: str) -> bool:
    """Whether a name is a suffix of a domain registry, such as `com` or `co.uk`, and not a host."""
    return _is_listed(name, _lists()[0])


def is_shared(name: str) -> bool:
    """Whether anybody can register below a name: a registry's suffix, or a private one such as `github.io`."""
    registries, private = _lists()
    return _is_listed(name, registries) or _is_listed(name, private)


def place() -> Path:
    """Return the path of the list. Raise ModuleNotFoundError if its package is not installed."""
    package = importlib.util.find_spec("publicsuffixlist")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The package publicsuffixlist is not installed.")
    return Path(package.origin).with_name("public_suffix_list.dat")


def _is_listed(name: str, lines: set[bytes]) -> bool:
    """Whether a lower-case name is a public suffix. `*.ck` includes `ck` and its children, except `!` lines."""
    text = _unicode(name).encode()
    _, _, above = text.partition(b".")
    return (text in lines or b"*." + text in lines or b"*." + above in lines) and b"!" + text not in lines


def _unicode(name: str) -> str:
    """Return a name in the list's form, with international labels in Unicode."""
    if "xn--" not in name:
        return name
    try:
        return idna.decode(name)
    except idna.IDNAError:
        return name


@functools.cache
def _lists() -> tuple[set[bytes], set[bytes]]:
    """Return the lines of the list's two sections. Comments may stay, because no name matches them."""
    content = place().read_bytes()
    registries, _, private = content.partition(_PRIVATE)
    return set(registries.split(b"\n")), set(private.split(b"\n"))
