"""Reading what `inspect` answers: only the fields that we set, in our words, defaults of the engine taken away."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, ip_network
from typing import Any

from clawker_fw.model import ContainerView, Healthcheck, Mount, NetworkView, Shape

_NANOSECONDS = 1_000_000_000


def container_view(raw: Mapping[str, Any]) -> ContainerView:
    """Read a container."""
    state = raw["State"]
    networks = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerView(
        id=raw["Id"],
        name=raw["Name"].removeprefix("/"),
        image=raw["Image"],
        labels=raw["Config"].get("Labels") or {},
        shape=_shape(raw["Config"], raw["HostConfig"], raw.get("Mounts") or [], networks),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        created=raw["Created"],
        started=state.get("StartedAt", ""),
        exit_code=state.get("ExitCode", 0),
        connected={name: endpoint.get("IPAddress") or "" for name, endpoint in networks.items()},
    )


def _shape(
    config: Mapping[str, Any],
    host: Mapping[str, Any],
    mounts: list[Mapping[str, Any]],
    networks: Mapping[str, Mapping[str, Any]],
) -> Shape:
    log = host.get("LogConfig") or {}
    return Shape(
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        networks={name: _fixed_address(endpoint) for name, endpoint in networks.items()},
        environment=tuple(config.get("Env") or ()),
        user=config.get("User") or "",
        mounts=tuple(_mount(mount) for mount in mounts),
        tmpfs=host.get("Tmpfs") or {},
        read_only=bool(host.get("ReadonlyRootfs")),
        privileged=bool(host.get("Privileged")),
        capabilities_added=_capabilities(host.get("CapAdd")),
        capabilities_dropped=_capabilities(host.get("CapDrop")),
        security_options=tuple(host.get("SecurityOpt") or ()),
        sysctls=host.get("Sysctls") or {},
        devices=tuple(device["PathOnHost"] for device in host.get("Devices") or ()),
        dns=tuple(host.get("Dns") or ()),
        extra_hosts=tuple(host.get("ExtraHosts") or ()),
        groups=tuple(host.get("GroupAdd") or ()),
        ports=tuple(sorted(host.get("PortBindings") or {})),
        pid_mode=host.get("PidMode") or "",
        ipc_mode=host.get("IpcMode") or "",
        memory=host.get("Memory") or 0,
        pids=host.get("PidsLimit") or 0,
        restart=(host.get("RestartPolicy") or {}).get("Name") or "",
        healthcheck=_healthcheck(config.get("Healthcheck")),
        log={"driver": log.get("Type", ""), **(log.get("Config") or {})},
    )


def _fixed_address(endpoint: Mapping[str, Any]) -> str:
    """Return the address that was asked for, which a container keeps while it is stopped."""
    return str((endpoint.get("IPAMConfig") or {}).get("IPv4Address") or "")


def _capabilities(names: list[str] | None) -> tuple[str, ...]:
    """Return capabilities without their prefix: engines differ in whether they keep it."""
    return tuple(sorted(name.removeprefix("CAP_") for name in names or ()))


def _mount(raw: Mapping[str, Any]) -> Mount:
    """Read a mount. An anonymous volume's name, which the engine made up, says nothing."""
    anonymous = raw["Type"] == "volume" and re.fullmatch(r"[0-9a-f]{64}", raw.get("Name", ""))
    source = "" if anonymous else raw.get("Name") or raw.get("Source") or ""
    return Mount(raw["Type"], raw["Destination"], source, read_only=not raw.get("RW", True))


def _healthcheck(raw: Mapping[str, Any] | None) -> Healthcheck | None:
    if not raw:
        return None
    return Healthcheck(
        test=tuple(raw.get("Test") or ())[1:],
        interval=raw.get("Interval", 0) / _NANOSECONDS,
        timeout=raw.get("Timeout", 0) / _NANOSECONDS,
        retries=raw.get("Retries", 0),
        start_period=raw.get("StartPeriod", 0) / _NANOSECONDS,
    )


def network_view(raw: Mapping[str, Any]) -> NetworkView:
    """Read a network; its IPv6 subnets are left out."""
    pools = (raw.get("IPAM") or {}).get("Config") or []
    ranges = [_ipv4(pool.get("IPRange")) for pool in pools]
    return NetworkView(
        id=raw["Id"],
        name=raw["Name"],
        driver=raw["Driver"],
        internal=bool(raw.get("Internal")),
        subnets=tuple(subnet for pool in pools if (subnet := _ipv4(pool.get("Subnet")))),
        ip_range=next((found for found in ranges if found), None),
        options=raw.get("Options") or {},
        labels=raw.get("Labels") or {},
    )


def _ipv4(text: str | None) -> IPv4Network | None:
    network = ip_network(text, strict=False) if text else None
    return network if isinstance(network, IPv4Network) else None
