"""The real programs without containers, on loopback, for tests of one of them alone."""

import platform
import socket


def machine() -> str:
    """Return this machine's architecture in Go's terms."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
