"""What becomes of requests: many side by side, and the filter chain to which Envoy leads each."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from clawker_fw.rules.rule import Protocol
from devkit.envoy import HERE, Proxy
from devkit.hellos import client_hello

_ENDED = (ConnectionResetError, ConnectionRefusedError, BrokenPipeError)


@dataclass(frozen=True, slots=True)
class Request:
    """What an agent does with a name, at one of the addresses at which Envoy listens."""

    name: str
    protocol: Protocol
    port: int
    at: IPv4Address = HERE


def outcomes(proxy: Proxy, requests: Sequence[Request], at_once: int = 64) -> list[str]:
    """Return the chain for each request, or an empty string if it is refused.

    As many are made before the first answer is read. An event loop would take four times as long for them.
    """
    return [
        outcome
        for first in range(0, len(requests), at_once)
        for outcome in _side_by_side(proxy, requests[first : first + at_once])
    ]


def _side_by_side(proxy: Proxy, requests: Sequence[Request]) -> Iterator[str]:
    with contextlib.ExitStack() as open_:
        made = [_made(proxy, each, open_) for each in requests]
        for request, connection in zip(requests, made, strict=True):
            yield _answer(request, connection) if connection else ""


def _made(proxy: Proxy, request: Request, open_: contextlib.ExitStack) -> socket.socket | None:
    """Make a request, and return its connection, or None if it was refused."""
    kind = socket.SOCK_DGRAM if request.protocol is Protocol.UDP else socket.SOCK_STREAM
    connection = open_.enter_context(socket.socket(type=kind))
    connection.settimeout(10)
    try:
        connection.connect(proxy.place(request.port, request.at))
        connection.sendall(_content(request))
    except _ENDED:
        return None
    return connection


def _content(request: Request) -> bytes:
    match request.protocol:
        case Protocol.HTTPS:
            return client_hello(request.name.encode())
        case Protocol.HTTP:
            return f"GET / HTTP/1.1\r\nHost: {request.name}:2222\r\nConnection: close\r\n\r\n".encode()
        case Protocol.UDP:
            return b"?"
    return b""


def _answer(request: Request, connection: socket.socket) -> str:
    """Return what comes back, or nothing if the connection is refused or ended."""
    try:
        match request.protocol:
            case Protocol.UDP:
                return _datagram(connection)
            case Protocol.HTTP:
                return _response(connection)
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    except _ENDED:
        return ""


def _response(connection: socket.socket) -> str:
    """Return the body of a response, or nothing if it is a refusal. Envoy keeps the connection for a second."""
    came = b""
    while b"\r\n\r\n" not in came:
        came = _more(connection, came)
    head, _, body = came.partition(b"\r\n\r\n")
    length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
    while len(body) < int(length.partition(b":")[2]):
        body = _more(connection, body)
    return body.decode() if head.startswith(b"HTTP/1.1 200 ") else ""


def _more(connection: socket.socket, before: bytes) -> bytes:
    came = connection.recv(4096)
    if not came:
        raise EOFError(f"the answer ends after {before!r}")
    return before + came


def _datagram(connection: socket.socket) -> str:
    """Return what comes back for a datagram: nothing if its port is closed."""
    connection.settimeout(0.2)
    for _ in range(50):  # a listener that is about to go drops what is sent to it
        try:
            return connection.recv(64).decode()
        except TimeoutError:
            connection.sendall(b"?")
    raise TimeoutError("nobody answers a datagram")
