"""A real Podman (Debian's) with its Docker-compatible socket, separate from the machine's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devkit.engines import PATH, install
from devkit.starting import pings, running

# Podman keeps locks and state in /run and /var/lib/containers, whatever its options are.
_START = """
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/containers && mount -t tmpfs tmpfs /var/lib/containers
exec "$0" "$@"
"""


@contextmanager
def podman(folder: Path) -> Iterator[str]:
    """Yield the address of a Podman that ends afterwards."""
    install({"podman": "podman"})
    socket = folder / "podman.sock"
    program = ("podman", "system", "service", "--time", "0", f"unix://{socket}")
    command = ["unshare", "--mount", "sh", "-ec", _START, *program]
    variables = {"PATH": PATH, "HOME": str(folder)}
    with running(command, folder / "log", lambda: pings(socket), variables=variables):
        yield f"unix://{socket}"
