"""The program `clawker-fw-healthy`: it asks a watcher for its health.

An engine starts it every few seconds for a container's health check, so it imports a socket and nothing else.
"""

import socket
import sys

_ANSWER_SECONDS = 10.0
"""How long a watcher may take to answer. It does so from memory, but its machine may be busy."""

_MOST_READ = 64 << 10
_USAGE = "Usage: clawker-fw-healthy unix:PATH|HOST:PORT [/health|/health/siblings]\n"


def main() -> None:
    """Print what the watcher answers. Exit with 0 if it is healthy, 1 if not, and 2 after wrong arguments."""
    match sys.argv[1:]:
        case [address] if ":" in address:
            healthy, text = ask(address)
        case [address, page] if ":" in address and page.startswith("/"):
            healthy, text = ask(address, page)
        case _:
            sys.stderr.write(_USAGE)
            sys.exit(2)
    sys.stdout.write(f"{text}\n")
    sys.exit(not healthy)


def ask(address: str, page: str = "/health") -> tuple[bool, str]:
    """Return whether the watcher at an address is healthy, and its answer in a line. Never raises.

    A watcher that does not answer is not healthy, and the line says why.
    """
    try:
        with _connect(address) as connection:
            connection.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                head, _, content = answer.read(_MOST_READ).partition(b"\r\n\r\n")
    except (OSError, ValueError) as error:
        return False, f"No watcher answers at {address}: {getattr(error, 'strerror', None) or error}."
    protocol, _, status = head.partition(b"\r\n")[0].partition(b" ")
    if not protocol.startswith(b"HTTP/"):
        return False, f"The program at {address} is not a watcher."
    return status.startswith(b"200"), content.decode(errors="replace").strip()


def _connect(address: str) -> socket.socket:
    kind, _, path = address.partition(":")
    if kind != "unix":
        host, _, port = address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_ANSWER_SECONDS)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


if __name__ == "__main__":
    main()
