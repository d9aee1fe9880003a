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
        with socket.socket(address.family) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(address.where)
            connection.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                head, _, content = answer.read(_MOST_READ).partition(b"\r\n\r\n")
    except OSError as error:
        return False, f"No watcher answers at {address}: {error.strerror or error}."
    protocol, _, status = head.partition(b"\r\n")[0].partition(b" ")
    if not protocol.startswith(b"HTTP/"):
        return False, f"Whoever answers at {address} is no watcher."
    return status.startswith(b"200"), content.decode(errors="replace").strip()
