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
