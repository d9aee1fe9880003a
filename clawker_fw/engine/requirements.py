"""What an engine must be, and have, to carry the firewall. Pure: judges what `/version` and `/info` answered.

Each refusal was measured, or follows from what a sibling is made with; docs/engines.md says which. It is told when
the engine is connected, before anything is touched: a firewall that half works is worse than none.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from clawker_fw.errors import EngineError
from clawker_fw.model import EngineFacts

OLDEST_API = "1.41"
"""Engine 20.10, the oldest that the siblings were tried on."""

ARCHITECTURES = ("amd64", "arm64")
"""Those that our programs are compiled for."""

OLDEST_KERNEL = "4.11"
"""The first with net.ipv4.ip_unprivileged_port_start, by which an unprivileged program listens on port 53."""

_ANOTHER = "Use a rootful Docker engine on Linux; say where it is with --host, --context or DOCKER_HOST."


def facts(place: str, version: Mapping[str, Any]) -> EngineFacts:
    """Return which engine answered `/version` so.

    Raises:
        EngineError: when it is none that could carry the firewall.
    """
    number, api = str(version.get("Version", "?")), str(version.get("ApiVersion", "0"))
    components = {str(each.get("Name")): str(each.get("Version")) for each in version.get("Components") or ()}
    if "Podman Engine" in components:
        raise EngineError(
            "engine-is-podman",
            f"The engine at {place} is Podman {components['Podman Engine']}, which can't carry this firewall.",
            context=["Podman gives containers its own DNS server instead of the one they are to use"],
            hint=_ANOTHER,
        )
    if version.get("Os", "linux") != "linux":
        raise EngineError(
            "engine-not-linux",
            f"The engine at {place} runs {version['Os']} containers, and the siblings are Linux programs.",
            hint="Switch it to Linux containers, or say where another one is with --host or --context.",
        )
    if _number(api) < _number(OLDEST_API):
        raise EngineError(
            "engine-too-old",
            f"The engine at {place} is version {number} (API {api}).",
            hint=f"Engine 20.10 (API {OLDEST_API}) or later is needed.",
        )
    architecture = str(version.get("Arch", "?"))
    if architecture not in ARCHITECTURES:
        raise EngineError(
            "engine-architecture",
            f"The engine at {place} runs linux/{architecture}, for which there are no programs.",
            hint=f"There are programs for linux/{' and linux/'.join(ARCHITECTURES)}.",
        )
    return EngineFacts(number, api, architecture)


def require_abilities(place: str, info: Mapping[str, Any]) -> None:
    """Pass when an engine that answered `/info` so has all that the siblings need.

    Raises:
        EngineError: with everything that it lacks.
    """
    if "name=rootless" in _security(info):
        raise EngineError(
            "engine-is-rootless",
            f"The engine at {place} is rootless, and the firewall needs a rootful one.",
            context=[
                "limits of memory and processes hold only where systemd delegates them",
                "in the one that was tried (20.10.24) Envoy's unprivileged user could not execute it",
            ],
            hint=_ANOTHER,
        )
    if lacking := list(_lacking(info)):
        raise EngineError(
            "engine-lacks",
            f"The engine at {place} lacks what the siblings need.",
            context=lacking,
            hint="`docker info` shows the same, under warnings, plugins and the kernel's version.",
        )


def container_root(info: Mapping[str, Any]) -> tuple[int, int]:
    """Return the user and group that a container's root is for the engine.

    With remapped users it is another one, and the engine's data folder is called after it (`userns-remap`).
    """
    named = re.search(r"/(\d+)\.(\d+)$", str(info.get("DockerRootDir", "")))
    return (int(named[1]), int(named[2])) if named and "name=userns" in _security(info) else (0, 0)


def _security(info: Mapping[str, Any]) -> set[str]:
    """Return the names of an engine's security options, which may have fields behind them (`name=a,key=b`)."""
    return {str(option).partition(",")[0] for option in info.get("SecurityOptions") or ()}


def _lacking(info: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an engine says it does not have. What it says nothing about is taken to be there."""
    if info.get("MemoryLimit") is False:
        yield "memory limits: its kernel has no memory control group (often `cgroup_enable=memory` at boot)"
    if info.get("PidsLimit") is False:
        yield "limits of processes: its kernel has no pids control group"
    networks = (info.get("Plugins") or {}).get("Network")
    if networks is not None and "bridge" not in networks:
        yield f"bridge networks: it has {', '.join(sorted(networks)) or 'none at all'}"
    kernel = str(info.get("KernelVersion") or "")
    if kernel and _number(kernel) < _number(OLDEST_KERNEL):
        yield f"net.ipv4.ip_unprivileged_port_start: its kernel is {kernel}, older than {OLDEST_KERNEL}"


def _number(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with, the first two of them."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
