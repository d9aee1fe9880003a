"""The network of this machine, which is that of a local engine.

A new network should not hide any destination of its routes. Its kernel may receive what agents broadcast, and may
track connections between containers.
"""

import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path

_TABLE = Path("/proc/net/route")
_SETTINGS = Path("/proc/sys/net/ipv4/conf")
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_UP = 0x1


def routes(table: Path = _TABLE) -> tuple[IPv4Network, ...]:
    """Return the destinations of all IPv4 routes except default routes (proc_pid_net(5), `/proc/net/route`).

    The result is empty on a machine without that file.
    """
    try:
        _, *lines = table.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return ()
    found = (_destination(line.split()) for line in lines)
    return tuple(sorted({route for route in found if route is not None and route.prefixlen}))


def checks_sources(interface: str, settings: Path = _SETTINGS) -> bool | None:
    """Return whether packets from an interface are dropped when their source is not reached through it.

    The kernel uses the higher value of `rp_filter` for all interfaces and for this one (Linux,
    Documentation/networking/ip-sysctl). The result is None if there is no such interface on this machine.
    """
    places = [settings / place / "rp_filter" for place in ("all", interface)]
    try:
        values = [int(place.read_text(encoding="ascii")) for place in places]
    except (OSError, ValueError):
        return None
    return max(values) > 0


def tracks_bridged(setting: Path = _BRIDGED) -> bool | None:
    """Return whether the kernel tracks connections between containers of one network; None if it does not say.

    It hands bridged packets to its packet filter, which tracks them, if br_netfilter is loaded and switched on, by
    an engine for example that keeps containers of a network apart (Linux, Documentation/networking/ip-sysctl,
    `bridge-nf-call-iptables`).
    """
    try:
        return int(setting.read_text(encoding="ascii")) > 0
    except FileNotFoundError:  # br_netfilter is not loaded
        return False
    except (OSError, ValueError):
        return None


def _destination(fields: list[str]) -> IPv4Network | None:
    _, destination, _, flags, _, _, _, mask, *_ = fields
    if not int(flags, 16) & _UP:
        return None
    return IPv4Network((_address(destination), _address(mask)))


def _address(text: str) -> str:
    """Read an address, which the kernel prints as a hexadecimal number in its own byte order."""
    return socket.inet_ntoa(struct.pack("=I", int(text, 16)))
