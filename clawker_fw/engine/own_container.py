"""Finds the container of the engine in which this program runs, if any.

An engine mounts its own files into each container (`/etc/hostname`, …). Their paths on the host contain the
container's id, and the kernel shows them inside (proc_pid_mountinfo(5)). If the engine knows such an id of 256
bits, it is one of its containers.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker import APIClient

from clawker_fw.engine.failures import translated
from clawker_fw.errors import NotFoundError
from clawker_fw.model.engines import Inside

_MOUNTS = Path("/proc/self/mountinfo")
_OF_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf)$")
_UPPER = re.compile(r"(?:^|,)upperdir=([^,]+)")
_NAMES = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})


def own_container(client: APIClient, info: Mapping[str, Any], mounts: Path = _MOUNTS) -> Inside | None:
    """Return this program's container if it is the engine's. Raise EngineError if it can't be described."""
    try:
        text = os.fsdecode(mounts.read_bytes())  # paths contain any bytes except spaces and line feeds
    except FileNotFoundError:  # not Linux
        return None
    lines = [line.split(" ") for line in text.strip("\n").split("\n")] if "/containers/" in text else []
    sources = (_OF_CONTAINER.search(line[3]) for line in lines if line[4] in _NAMES)
    ids = {source[1] for source in sources if source}
    if len(ids) != 1:
        return None
    try:
        with translated("describe the container that this program is in"):
            answer = client.inspect_container(ids.pop())
    except NotFoundError:  # it is another engine's
        return None
    if not _has_root(answer, lines):
        return None
    return Inside(
        answer["Id"],
        str(info.get("Name") or ""),
        tuple(
            sorted(
                (str(mount["Destination"]), str(mount["Source"]))
                for mount in answer.get("Mounts") or ()
                if mount.get("Source") and mount.get("Destination")
            )
        ),
        host_network=(answer.get("HostConfig") or {}).get("NetworkMode") == "host",
    )


def _has_root(container: Mapping[str, Any], lines: list[list[str]]) -> bool:
    """Whether our root is the container's, because containers that share its network have some of its files.

    An engine with containerd's image store does not report the place.
    """
    upper = ((container.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    own = next((line for line in lines if line[4] == "/"), None)
    here = _UPPER.search(own[-1]) if own else None
    return not upper or not here or here[1] == upper
