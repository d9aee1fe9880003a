"""Parses a URL, or a host with an optional port, into a name, a protocol and a port.

A URL's userinfo and query may hold secrets and are never shown. Only a request keeps its query, which git needs.
"""

import os
import re
from dataclasses import dataclass, field

from clawker_fw.rules import paths
from clawker_fw.rules.destination import is_address, parse_destination
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol
from clawker_fw.rules.schema import ALIASES

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_PROTOCOLS = {**{str(protocol): protocol for protocol in Protocol}, **ALIASES}
_WEBSOCKET = "wss"
"""A WebSocket over TLS (RFC 6455, section 3)."""
_USUAL = {22: Protocol.SSH, 80: Protocol.HTTP, 8080: Protocol.HTTP}
_END_OF_AUTHORITY = re.compile(r"[/?#\\]")


@dataclass(frozen=True, slots=True)
class Target:
    """A connection that an agent may want. `mistake` says why `name` is not a valid host name."""

    name: str
    protocol: Protocol
    port: int
    mistake: str = ""

    @property
    def url(self) -> str:
        """The shortest URL of the target."""
        port = "" if self.port == self.protocol.default_port else f":{self.port}"
        return f"{self.protocol}://{self.name}{port}"

    def __str__(self) -> str:
        """Return one line, like a rule: `https api.example.com:443`."""
        return f"{self.protocol} {self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    """A request in a connection: method, path with the query, and whether it asks for a WebSocket."""

    method: str
    target: str = field(repr=False)
    websocket: bool = False

    @property
    def path(self) -> str:
        """The path without the query in Envoy's form, or as sent if Envoy can't read it."""
        return (paths.seen(self.target) or self.target).partition("?")[0]

    def __str__(self) -> str:
        """Return the method and the path, without the query, which may hold secrets."""
        return f"{self.method} {self.path}"


def parse_request(text: str, method: str | None = None) -> Request | None:
    """Read the request of a URL without its fragment; None without a path, a method and a WebSocket."""
    match = _SCHEME.fullmatch(text.strip())
    rest = (match[2] if match else text.strip()).partition("#")[0]
    after = _END_OF_AUTHORITY.search(rest)
    target = rest[after.start() :] if after else ""
    websocket = match is not None and match[1].lower() == _WEBSOCKET
    if not target and method is None and not websocket:
        return None
    octets = os.fsencode(target).decode("latin-1").translate(_SENT)
    path = octets if octets.startswith(("/", "\\")) else f"/{octets}"
    return Request(method or "GET", path, websocket)


_SENT = {byte: f"%{byte:02X}" for byte in (*range(0x21), *range(0x7F, 0x100))}
"""Clients escape these bytes of a URL, which no request can contain."""


def meant_by(port: int) -> tuple[Protocol, ...]:
    """Return the likely protocols of a port, the likeliest first.

    Most ports give https, because an https rule allows less than a tcp rule.
    """
    return (_USUAL.get(port, Protocol.HTTPS), Protocol.TCP)


def parse_target(text: str) -> Target:
    """Read a URL, HOST or HOST:PORT. Without a scheme, the port suggests the protocol (`meant_by`).

    Raises:
        ValueError: when the scheme is not supported, or the host or a valid port is missing.
    """
    spoken, rest = None, text.strip()
    if match := _SCHEME.fullmatch(rest):
        scheme, rest = match[1].lower(), match[2]
        if scheme not in _PROTOCOLS:
            raise ValueError(f"{scheme}:// is not supported; {', '.join(_PROTOCOLS)} are")
        spoken = _PROTOCOLS[scheme]
    authority = _END_OF_AUTHORITY.split(rest, maxsplit=1)[0].rpartition("@")[2]
    host, port = _parts(authority)
    if not host:
        raise ValueError("it names no host")
    if spoken is None:
        spoken = meant_by(port)[0] if port else Protocol.HTTPS
    port = port or spoken.default_port
    if port is None:
        raise ValueError(f"{spoken} has no usual port; add one, as in {spoken}://{host}:5432")
    return _target(host, spoken, port)


def _parts(authority: str) -> tuple[str, int | None]:
    """Return the host and the port. An IPv6 address with a port is in brackets (RFC 3986, section 3.2.2)."""
    if is_address(authority):
        return authority, None
    host, colon, port = authority.rpartition(":")
    if not colon:
        return port, None
    if not port:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= HIGHEST_PORT:
        raise ValueError(f"a port is a number from 1 to {HIGHEST_PORT}")
    return host, int(port)


def _target(host: str, protocol: Protocol, port: int) -> Target:
    if is_address(host):
        return Target(host, protocol, port, f"{host} is an address, and agents reach names only")
    if host.startswith("."):
        return Target(host, protocol, port, f"{host!r} begins with a dot, which only a rule may")
    try:
        return Target(parse_destination(host).name, protocol, port)
    except ValueError as error:
        return Target(host, protocol, port, str(error))
