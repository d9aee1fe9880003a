"""How a command names a destination: `a.test`, `.a.test:8443`, `http://a.test`."""

import re
from dataclasses import dataclass

_NAME = re.compile(
    r"(?:(?P<proto>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<dst>[^/:\[\]]+)(?::(?P<port>[0-9]{1,5}(?:-[0-9]{1,5})?))?/?"
)
_URL = re.compile(r"(?P<proto>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.+)")


@dataclass(frozen=True, slots=True)
class Named:
    """A destination as the user wrote it: `a.test`, `.a.test:8443`, `http://a.test`. Nothing is checked yet."""

    dst: str
    proto: str | None = None
    port: int | str | None = None


def parse_name(text: str) -> Named:
    """Split a destination into its parts. Text of any other form becomes the `dst`, which validation refuses."""
    match = _NAME.fullmatch(text)
    if match is None:
        url = _URL.fullmatch(text)
        return Named(url["rest"], url["proto"]) if url else Named(text)
    return Named(match["dst"], match["proto"], port_of(match["port"]))


def port_of(text: str | None) -> int | str | None:
    """Return a port as a number. A port range stays text, as in the settings."""
    return int(text) if text and text.isdecimal() else text
