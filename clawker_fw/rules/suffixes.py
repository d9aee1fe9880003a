"""Names below which anybody can have a name of their own: the public suffix list (https://publicsuffix.org).

A rule for all of `.github.io` allows whatever anybody puts there, and `co.uk` is no host. The list comes with the
package `publicsuffixlist`. It is read here rather than by that package, which takes 15 times as long to make its
tables, because every command reads the rules.
"""

import functools
import importlib.util
from pathlib import Path

_PRIVATE = b"// ===BEGIN PRIVATE DOMAINS==="


def is_registry(name: str) -> bool:
    """Whether a name belongs to a registry of domain names, as `com` and `co.uk` do: it is no host."""
    return _is_listed(name, _lists()[0])


def is_shared(name: str) -> bool:
    """Whether anybody can have a name below this one: a registry's, or one such as `github.io`."""
    registries, private = _lists()
    return _is_listed(name, registries) or _is_listed(name, private)


def _is_listed(name: str, lines: set[bytes]) -> bool:
    """Whether a name in lower case is a public suffix.

    A rule `*.ck` makes one of every name below `ck` but those with an exception, and of `ck` itself.
    """
    text = _unicode(name).encode()
    _, _, above = text.partition(b".")
    return b"!" + text not in lines and not lines.isdisjoint({text, b"*." + text, b"*." + above})


def _unicode(name: str) -> str:
    """Return a name as the list has it: international ones in Unicode."""
    if "xn--" not in name:
        return name
    import idna  # noqa: PLC0415 - only international names need its tables

    try:
        return idna.decode(name)
    except idna.IDNAError:
        return name


@functools.cache
def _lists() -> tuple[set[bytes], set[bytes]]:
    """Return the lines of the list's two sections; comments match no name."""
    package = importlib.util.find_spec("publicsuffixlist")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The package publicsuffixlist is not installed.")
    content = Path(package.origin).with_name("public_suffix_list.dat").read_bytes()
    registries, _, private = content.partition(_PRIVATE)
    return set(registries.split(b"\n")), set(private.split(b"\n"))
