"""The routes of this machine. A new network of a local engine should not hide any of their destinations."""

import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path

_TABLE = Path("/proc/net/route")
_UP = 0x1


def of_this_machine(table: Path = _TABLE) -> tuple[IPv4Network, ...]:
    """Return the destinations of all IPv4 routes except default routes (proc_pid_net(5), `/proc/net/route`).

    The result is empty on a machine without that file.
    """
    try:
        _, *lines = table.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return ()
    routes = (_destination(line.split()) for line in lines)
    return tuple(sorted({route for route in routes if route is not None and route.prefixlen}))


def _destination(fields: list[str]) -> IPv4Network | None:
    _, destination, _, flags, _, _, _, mask, *_ = fields
    if not int(flags, 16) & _UP:
        return None
    return IPv4Network((_address(destination), _address(mask)))


def _address(text: str) -> str:
    """Read an address, which the kernel prints as a hexadecimal number in its own byte order."""
    return socket.inet_ntoa(struct.pack("=I", int(text, 16)))
