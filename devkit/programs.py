"""The real programs without containers, on loopback, for tests of one of them alone."""

import os
import platform
import secrets
import socket
from contextlib import suppress
from ipaddress import IPv4Address

from clawker_fw.rules.ruleset import MOST_PORTS

OWN_LOOPBACK = str(IPv4Address("127.16.0.0") + os.getpid() % 2**20)
"""An address on loopback that each process has for itself: tests run side by side, and want the same ports."""


def machine() -> str:
    """Return this machine's architecture in Go's terms."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


MANY_PORTS = range(20_000, 20_000 + MOST_PORTS - 2)
"""The largest number of ports that rules may have besides 80 and 443. One test listens on all of them."""

_PORTS = range(MANY_PORTS.stop, 32_000)
"""Ports to choose from. The kernel gives none of them to clients (ip_local_port_range), which might take one
between the choice and its use."""


def free_port() -> int:
    """Return a port on which nobody listens, neither for connections nor for datagrams."""
    while True:
        port = secrets.choice(_PORTS)  # no seed of a test makes workers choose the same
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, suppress(OSError):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port
