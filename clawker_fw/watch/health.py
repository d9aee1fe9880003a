"""Asking a watcher on this machine for its health, as engines do every few seconds: nothing slow is imported."""

import socket

from clawker_fw.watch.address import ListenAddress

_SECONDS = 3.0
"""How long a watcher may take to answer. It does so from memory."""

_MOST_READ = 64 << 10


def ask(address: ListenAddress, page: str) -> tuple[bool, str]:
    """Ask a watcher for a page about its health: whether it is healthy, and what it says, in a line. Never raises.

    One that does not answer is not healthy, and the line says why.
    """
    try:
        with _connected(address) as connection:
            connection.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
            head, _, content = _read(connection).partition(b"\r\n\r\n")
    except OSError as error:
        return False, f"No watcher answers at {address}: {error.strerror or error}."
    protocol, _, status = head.partition(b"\r\n")[0].partition(b" ")
    if not protocol.startswith(b"HTTP/"):
        return False, f"Whoever answers at {address} is no watcher."
    return status.startswith(b"200"), content.decode(errors="replace").strip()


def _connected(address: ListenAddress) -> socket.socket:
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    connection = socket.socket(family)
    connection.settimeout(_SECONDS)
    try:
        connection.connect(str(address.path) if address.path else (address.host, address.port))
    except BaseException:
        connection.close()
        raise
    return connection


def _read(connection: socket.socket) -> bytes:
    """Read to the end, but no more than a page about health has."""
    found = b""
    while len(found) < _MOST_READ and (read := connection.recv(_MOST_READ)):
        found += read
    return found
