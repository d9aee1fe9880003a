"""The real programs without containers, on loopback, for tests of one of them alone."""

import os
import platform
import socket
from ipaddress import IPv4Address

OWN_LOOPBACK = str(IPv4Address("127.16.0.0") + os.getpid() % 2**20)
"""An address on loopback that each process has for itself: tests run side by side, and want the same ports."""


def machine() -> str:
    """Return this machine's architecture in Go's terms."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
