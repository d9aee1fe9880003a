"""The network of this machine, on which a local engine runs.

A new network should not hide a destination of its routes. Its kernel may receive agents' broadcasts, and track
connections between containers.
"""

import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

_TABLE = Path("/proc/net/route")
_SETTINGS = Path("/proc/sys/net/ipv4/conf")
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_max")
_UP = 0x1


def routes(table: Path = _TABLE) -> tuple[IPv4Network, ...]:
    """Return the destinations of all IPv4 routes but default ones (proc_pid_net(5)); none without such a file."""
    try:
        _, *lines = table.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return ()
    destinations = set()
    for line in lines:
        _, destination, _, flags, _, _, _, mask, *_ = line.split()
        if int(flags, 16) & _UP:
            destinations.add(IPv4Network((_address(destination), _address(mask))))
    return tuple(sorted(route for route in destinations if route.prefixlen))


def checks_sources(interface: str, settings: Path = _SETTINGS) -> bool | None:
    """Return whether packets from an interface are dropped if their source is reached through another one.

    The kernel uses the higher `rp_filter` of all interfaces and this one (Linux,
    Documentation/networking/ip-sysctl). None means that this machine lacks the interface.
    """
    places = [settings / place / "rp_filter" for place in ("all", interface)]
    with suppress(OSError, ValueError):
        return max([int(place.read_text(encoding="ascii")) for place in places]) > 0
    return None


def most_tracked() -> int | None:
    """Return how many connections this machine's kernel can track; None if unknown."""
    with suppress(OSError, ValueError):
        return int(_TRACKED.read_text(encoding="ascii"))
    return None


def tracks_bridged(setting: Path = _BRIDGED) -> bool | None:
    """Return whether the kernel tracks connections between containers of one network; None if unknown.

    With br_netfilter loaded and enabled, for example by an engine that isolates containers of a network, bridged
    packets pass the packet filter, which tracks them (Linux, Documentation/networking/ip-sysctl,
    `bridge-nf-call-iptables`).
    """
    try:
        return int(setting.read_text(encoding="ascii")) > 0
    except FileNotFoundError:  # br_netfilter is not loaded
        return False
    except (OSError, ValueError):
        return None


def _address(text: str) -> str:
    """Read an address, a hexadecimal number in the kernel's byte order."""
    return socket.inet_ntoa(struct.pack("=I", int(text, 16)))
