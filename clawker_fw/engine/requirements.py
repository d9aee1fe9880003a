"""The requirements for an engine, checked in its answers to `/version` and `/info`. Pure.

Each was measured, or follows from how our containers are created; docs/engines.md says which. They are checked on
connecting, before any change, because a firewall that works in part is worse than none.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from clawker_fw.engine import shapes
from clawker_fw.errors import EngineError
from clawker_fw.model.engines import EngineFacts, Machine
from clawker_fw.stack.versions import is_older

OLDEST_API = "1.41"
"""The API of engine 20.10, the oldest tested engine."""

NEWEST_API = "1.56"
"""The newest tested API, also used with later engines, because its answers keep their form."""

ARCHITECTURES = ("amd64", "arm64")
"""The architectures for which our programs are compiled."""

OLDEST_KERNEL = "4.18"
"""The first kernel whose nftables can limit the connections of each address."""

_ANOTHER = "Use a rootful Docker engine on Linux, and name it with --host, --context or DOCKER_HOST."


def facts(place: str, version: Mapping[str, Any]) -> EngineFacts:
    """Return the properties of an engine from its answer to `/version`, with the API version to use.

    Raises:
        EngineError: when it does not meet the requirements.
    """
    number, api = str(version.get("Version", "?")), str(version.get("ApiVersion", "0"))
    components = {
        str(component.get("Name")): str(component.get("Version")) for component in version.get("Components") or ()
    }
    if "Podman Engine" in components:
        raise EngineError(
            "engine-is-podman",
            f"The engine at {place} is Podman {components['Podman Engine']}, which is not supported.",
            context=["Podman gives containers its own DNS server instead of the configured one"],
            hint=_ANOTHER,
        )
    if version.get("Os", "linux") != "linux":
        raise EngineError(
            "engine-not-linux",
            f"The engine at {place} runs {version['Os']} containers, and the firewall needs Linux containers.",
            hint="Switch it to Linux containers, or name another one with --host or --context.",
        )
    if is_older(api, OLDEST_API):
        raise EngineError(
            "engine-too-old",
            f"The engine at {place} is version {number} (API {api}).",
            hint=f"Engine 20.10 (API {OLDEST_API}) or later is needed.",
        )
    least = str(version.get("MinAPIVersion") or OLDEST_API)
    if is_older(NEWEST_API, least):
        raise EngineError(
            "engine-too-new",
            f"The engine at {place} is version {number}, and takes API {least} and later.",
            context=[f"this release speaks API {OLDEST_API} to {NEWEST_API}"],
            hint="Install a later clawker-fw, or lower `min-api-version` in the engine's daemon.json.",
        )
    architecture = str(version.get("Arch", "?"))
    if architecture not in ARCHITECTURES:
        raise EngineError(
            "engine-architecture",
            f"The engine at {place} runs linux/{architecture}, which is not supported.",
            hint=f"Supported are linux/{' and linux/'.join(ARCHITECTURES)}.",
        )
    kernel = str(version.get("KernelVersion") or "")
    return EngineFacts(number, api if is_older(api, NEWEST_API) else NEWEST_API, architecture, kernel=kernel)


def require_abilities(place: str, info: Mapping[str, Any]) -> None:
    """Check an engine's answer to `/info`. Raise EngineError that lists everything the engine lacks."""
    if "name=rootless" in _security(info):
        raise EngineError(
            "engine-is-rootless",
            f"The engine at {place} is rootless, and the firewall needs a rootful one.",
            context=[
                "memory and process limits only work there if systemd delegates them",
                "in the tested one (20.10.24), Envoy's unprivileged user could not execute it",
            ],
            hint=_ANOTHER,
        )
    if lacking := list(_lacking(info)):
        raise EngineError(
            "engine-lacks",
            f"The engine at {place} lacks what the firewall needs.",
            context=lacking,
            hint="`docker info` shows it too: see its warnings, plugins and kernel version.",
        )


def container_root(info: Mapping[str, Any]) -> tuple[int, int]:
    """Return the user and group of containers' root on the host.

    With `userns-remap`, the engine's data folder is named after them.
    """
    named = re.search(r"/(\d+)\.(\d+)$", str(info.get("DockerRootDir", "")))
    return (int(named[1]), int(named[2])) if named and "name=userns" in _security(info) else (0, 0)


def machine(info: Mapping[str, Any]) -> Machine:
    """Return the host's resources. Engines count only the processors that they may use themselves."""
    return Machine(
        int(info.get("NCPU") or 0),
        int(info.get("MemTotal") or 0),
        forwards=info.get("IPv4Forwarding") is not False,
        weights=info.get("CPUShares") is not False,
        swap_limit=info.get("SwapLimit") is not False,
        runtime=shapes.runtime(info.get("DefaultRuntime")),
    )


def _security(info: Mapping[str, Any]) -> set[str]:
    """Return an engine's security options without the fields that may follow (`name=a,key=b`)."""
    return {str(option).partition(",")[0] for option in info.get("SecurityOptions") or ()}


def _lacking(info: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an engine reports as missing; anything not mentioned is assumed to exist."""
    if info.get("MemoryLimit") is False:
        yield "memory limits: its kernel has no memory control group (often `cgroup_enable=memory` at boot)"
    if info.get("PidsLimit") is False:
        yield "process limits: its kernel has no pids control group"
    networks = (info.get("Plugins") or {}).get("Network")
    if networks is not None and "bridge" not in networks:
        yield f"bridge networks: it has {', '.join(sorted(networks)) or 'none at all'}"
    kernel = str(info.get("KernelVersion") or "")
    if kernel and is_older(kernel, OLDEST_KERNEL):
        yield f"limits of connections in nftables: its kernel is {kernel}, older than {OLDEST_KERNEL}"
