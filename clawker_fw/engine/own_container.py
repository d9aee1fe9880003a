"""Whether this program runs in a container of the engine that it asks, and what of that container it has to know.

The engine mounts files of its own into each container (`/etc/hostname`, …). Their paths on its machine have the
container's id, and the kernel shows them inside (proc_pid_mountinfo(5)). An id of 256 bits that the engine knows
is the id of one of its containers.
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
    """Return the container of this engine in which this program runs, or None if it runs in none.

    Raises:
        EngineError: when the engine does not say anything about its own container.
    """
    try:
        text = os.fsdecode(mounts.read_bytes())  # a path has any bytes but spaces and line feeds
    except FileNotFoundError:  # not Linux
        return None
    lines = [line.split(" ") for line in text.strip("\n").split("\n")] if "/containers/" in text else []
    found = {named[1] for line in lines if line[4] in _NAMES and (named := _OF_CONTAINER.search(line[3]))}
    if len(found) != 1:
        return None
    try:
        with translated("describe the container that this program is in"):
            said = client.inspect_container(found.pop())
    except NotFoundError:  # of another engine
        return None
    if not _has_root(said, lines):
        return None
    return Inside(
        said["Id"],
        str(info.get("Name") or ""),
        tuple(
            sorted(
                (str(each["Destination"]), str(each["Source"]))
                for each in said.get("Mounts") or ()
                if each.get("Source") and each.get("Destination")
            )
        ),
        host_network=(said.get("HostConfig") or {}).get("NetworkMode") == "host",
    )


def _has_root(said: Mapping[str, Any], lines: list[list[str]]) -> bool:
    """Whether the files here are those of a container: one with the network of another has some of the other.

    An engine with containerd's image store does not say where it keeps them.
    """
    upper = ((said.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    own = next((line for line in lines if line[4] == "/"), None)
    here = _UPPER.search(own[-1]) if own else None
    return not upper or not here or here[1] == upper
