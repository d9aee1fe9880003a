"""Processes of containers as this machine sees them: an engine's `top` needs a `ps`, which not every one has."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from docker import APIClient


def processes(docker: APIClient, container: str) -> Iterator[Path]:
    """Yield the folders below /proc of a container's processes, on an engine of this machine."""
    identity = docker.inspect_container(container)["Id"]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if identity in (process / "cgroup").read_text():
                yield process


def program(docker: APIClient, container: str) -> Path:
    """Return the folder of Envoy or CoreDNS in its container, whose process 1 is the supervisor."""
    (found,) = (each for each in processes(docker, container) if "Gid:\t65532" in (each / "status").read_text())
    return found
