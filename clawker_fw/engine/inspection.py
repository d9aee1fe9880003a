"""Translation of the engine's answers (inspected objects, lists, events) into the model's terms.

Only fields that we set or compare are read, and the engine's defaults are left out. What is not read of a
container is listed in `devkit/ignored.py`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, ip_network
from pathlib import PurePosixPath
from typing import Any

from clawker_fw.model import (
    ContainerSummary,
    ContainerView,
    Endpoint,
    Event,
    Healthcheck,
    Mount,
    NetworkView,
    Shape,
    VolumeView,
)
from clawker_fw.stack import built, labels
from clawker_fw.stack.container import VOLUME, trust_name
from clawker_fw.stack.ulimits import LIMITED

_NANOSECONDS = 1_000_000_000

_ANONYMOUS = "com.docker.volume.anonymous"
"""The label with which newer engines mark anonymous volumes."""

_GENERATED_NAME = re.compile("[0-9a-f]{64}")
"""The form of a generated volume name."""

LOCAL_LOGS = frozenset({"", "json-file", "local", "journald", "none"})
"""The drivers of logs that stay on the engine's machine. All others but `syslog` send what a container writes."""

LOCAL_SYSLOG = frozenset({"", "unix", "unixgram"})
"""How the addresses of a `syslog` on the engine's machine begin."""

_LOG_BOUNDS = {"max-file", "max-size"}
"""The options of a log that decide something. The engine adds those of its daemon.json, such as `tag`."""

_MASKED = {
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug"),
    *("/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
}
_READ_ONLY = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
"""What every supported engine masks, and makes read-only, in a container by default. Later ones add to it."""

_BLOCK_DEVICES = (
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeight",
    "BlkioWeightDevice",
)

_FURTHER = (
    "Annotations",
    "AutoRemove",
    "Cgroup",
    "KernelMemory",
    "KernelMemoryTCP",
    "MemorySwappiness",
    "OomKillDisable",
    "OomScoreAdj",
    "StorageOpt",
    "VolumeDriver",
)
"""Options that no sibling has, and for which no engine has a default of its own."""

_PROCESSOR_LIMITS = (
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpusetCpus",
    "CpusetMems",
    "NanoCpus",
)


def container_view(raw: Mapping[str, Any]) -> ContainerView:
    """Read a container.

    The engine keeps the files of a network, such as `resolv.conf`, in the folder of the container whose network it
    is, which is called by the id. Whoever joins this network has the same files.
    """
    state = raw["State"]
    networks = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerView(
        id=raw["Id"],
        name=raw["Name"].removeprefix("/"),
        image=raw["Image"],
        labels=raw["Config"].get("Labels") or {},
        shape=_shape(raw["Config"], raw["HostConfig"], raw.get("Mounts") or [], networks, raw["Id"]),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        started=state.get("StartedAt", ""),
        exit_code=state.get("ExitCode", 0),
        restarts=raw.get("RestartCount", 0),
        connected={name: endpoint.get("IPAddress") or "" for name, endpoint in networks.items()},
        remembered={name: endpoint.get("NetworkID") or "" for name, endpoint in networks.items()},
        reference=raw["Config"].get("Image") or "",
        network_mode=raw["HostConfig"].get("NetworkMode") or "",
        network_owner=PurePosixPath(raw.get("ResolvConfPath") or "").parent.name,
        logs_to=_logs_to(_log(raw["HostConfig"])),
        may_lose_lines=(_log(raw["HostConfig"]).get("Config") or {}).get("mode") == "non-blocking",
        project=labels.project_of_container(
            raw["Config"].get("Labels") or {}, _requested_labels(raw["HostConfig"])
        ),
        volumes=_volumes(raw),
        requested={
            name: addresses
            for name, endpoint in networks.items()
            if (addresses := _requested_addresses(endpoint, raw["Config"].get("MacAddress") or ""))
        },
        published=_bindings((raw.get("NetworkSettings") or {}).get("Ports")),
    )


def _requested_addresses(endpoint: Mapping[str, Any], hardware: str) -> tuple[str, ...]:
    """Return the addresses that were asked for on a network. `hardware` is what old engines say of the container.

    Later engines say it of the endpoint, which has one that nobody asked for while the container runs.
    """
    asked = endpoint.get("IPAMConfig") or {}
    found = (asked.get("IPv4Address"), asked.get("IPv6Address"), *(asked.get("LinkLocalIPs") or ()))
    unconnected = "" if endpoint.get("EndpointID") else endpoint.get("MacAddress")
    return tuple(filter(None, (*found, hardware or unconnected)))


def _requested_labels(host: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Return the labels with which the volume for our files was requested, or None if it was not requested."""
    for each in host.get("Mounts") or ():
        if each.get("Target") == VOLUME and each.get("Type") == "volume" and not each.get("Source"):
            return (each.get("VolumeOptions") or {}).get("Labels") or {}
    return None


def _shape(
    config: Mapping[str, Any],
    host: Mapping[str, Any],
    mounts: list[Mapping[str, Any]],
    networks: Mapping[str, Mapping[str, Any]],
    identity: str,
) -> Shape:
    log = _log(host)
    return Shape(
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        networks={name: _fixed_address(endpoint) for name, endpoint in networks.items()},
        environment=tuple(config.get("Env") or ()),
        user=config.get("User") or "",
        working_directory=config.get("WorkingDir") or "",
        hostname="" if _is_short_id(config.get("Hostname") or "", identity) else config.get("Hostname") or "",
        domain_name=config.get("Domainname") or "",
        terminal=any(config.get(name) for name in ("OpenStdin", "StdinOnce", "Tty")),
        init=host.get("Init"),
        stop_signal=_stop_signal(config),
        mounts=tuple(_mount(mount) for mount in mounts),
        tmpfs=host.get("Tmpfs") or {},
        read_only=bool(host.get("ReadonlyRootfs")),
        privileged=bool(host.get("Privileged")),
        capabilities_added=_capabilities(host.get("CapAdd")),
        capabilities_dropped=_capabilities(host.get("CapDrop")),
        security_options=tuple(host.get("SecurityOpt") or ()),
        sysctls=host.get("Sysctls") or {},
        devices=tuple(device["PathOnHost"] for device in host.get("Devices") or ()),
        device_rules=tuple(host.get("DeviceCgroupRules") or ()),
        device_requests=tuple(json.dumps(each, sort_keys=True) for each in host.get("DeviceRequests") or ()),
        dns=tuple(host.get("Dns") or ()),
        dns_search=tuple(host.get("DnsSearch") or ()),
        dns_options=tuple(host.get("DnsOptions") or ()),
        extra_hosts=tuple(host.get("ExtraHosts") or ()),
        aliases=_aliases(networks, identity, config.get("Hostname") or ""),
        links=tuple(host.get("Links") or ()),
        groups=tuple(host.get("GroupAdd") or ()),
        ports=_bindings(host.get("PortBindings")),
        publish_all=bool(host.get("PublishAllPorts")),
        volumes_from=tuple(host.get("VolumesFrom") or ()),
        runtime=runtime(host.get("Runtime")),
        pid_mode=host.get("PidMode") or "",
        ipc_mode=host.get("IpcMode") or "",
        cgroup_mode=host.get("CgroupnsMode") or "",
        uts_mode=host.get("UTSMode") or "",
        userns_mode=host.get("UsernsMode") or "",
        system_paths=_system_paths(host.get("MaskedPaths"), host.get("ReadonlyPaths")),
        cgroup_parent=host.get("CgroupParent") or "",
        processors=_given(host, _PROCESSOR_LIMITS),
        cpu_shares=host.get("CpuShares") or 0,
        block_devices=_given(host, _BLOCK_DEVICES),
        memory=host.get("Memory") or 0,
        memory_swap=host.get("MemorySwap") or 0,
        memory_reservation=host.get("MemoryReservation") or 0,
        shared_memory=host.get("ShmSize") or 0,
        pids=host.get("PidsLimit") or 0,
        ulimits={each["Name"]: _ulimit(each) for each in host.get("Ulimits") or () if each["Name"] in LIMITED},
        restart=(host.get("RestartPolicy") or {}).get("Name") or "",
        healthcheck=_healthcheck(config.get("Healthcheck")),
        log={
            "driver": log.get("Type", ""),
            **{name: text for name, text in (log.get("Config") or {}).items() if name in _LOG_BOUNDS},
        },
        further=_given(host, _FURTHER),
    )


def _bindings(found: Mapping[str, list[Mapping[str, str]] | None] | None) -> tuple[str, ...]:
    """Return ports that are published, as a shape has them, in order. Without an address, it is every one."""
    return tuple(
        sorted(
            f"{each.get('HostIp') or ''}:{each.get('HostPort') or ''}:{port}"
            for port, bindings in (found or {}).items()
            for each in bindings or ()
        )
    )


def _ulimit(found: Mapping[str, Any]) -> str:
    soft, hard = found["Soft"], found["Hard"]
    return str(soft) if soft == hard else f"{soft}:{hard}"


def runtime(name: str | None) -> str:
    """Return the name of a runtime, or an empty string for the names that engines give runc."""
    return "" if name in {None, "", "runc", "io.containerd.runc.v2"} else str(name)


def _log(host: Mapping[str, Any]) -> Mapping[str, Any]:
    return host.get("LogConfig") or {}


def _logs_to(log: Mapping[str, Any]) -> str:
    """Return the driver of a log that is sent over a network, or an empty string. Syslog needs an address."""
    driver = log.get("Type") or ""
    address = str((log.get("Config") or {}).get("syslog-address") or "")
    if driver == "syslog":
        return "" if address.partition("://")[0] in LOCAL_SYSLOG else driver
    return "" if driver in LOCAL_LOGS else driver


def _given(host: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Return the options among these that have a value."""
    return tuple(f"{name}={_written(host[name])}" for name in names if host.get(name))


def _written(value: object) -> str:
    return str(value) if isinstance(value, str | int) else json.dumps(value, sort_keys=True)


def _is_short_id(hostname: str, identity: str) -> bool:
    """Whether a host name is the one that an engine derives from the container's id."""
    return hostname == identity[:12]


def _stop_signal(config: Mapping[str, Any]) -> str:
    """Return what ends a container, with its seconds if it has other than the engine's."""
    seconds = config.get("StopTimeout")
    return (config.get("StopSignal") or "") + (f" {seconds} s" if seconds is not None else "")


def _system_paths(masked: list[str] | None, read_only: list[str] | None) -> str:
    """Return which paths are not protected as by default. An engine lists none for a privileged container."""
    if [] in (masked, read_only):
        return "unconfined"
    missing = {*(_MASKED - set(masked or _MASKED)), *(_READ_ONLY - set(read_only or _READ_ONLY))}
    return ", ".join(sorted(missing))


def _fixed_address(endpoint: Mapping[str, Any]) -> str:
    """Return the requested address, which a container keeps while it is stopped."""
    return str((endpoint.get("IPAMConfig") or {}).get("IPv4Address") or "")


def _aliases(networks: Mapping[str, Mapping[str, Any]], identity: str, hostname: str) -> tuple[str, ...]:
    """Return a container's aliases on its networks, without the short id and host name that some engines add."""
    return tuple(
        f"{network}:{alias}"
        for network in sorted(networks)
        for alias in sorted(networks[network].get("Aliases") or ())
        if not identity.startswith(alias) and alias != hostname
    )


def _capabilities(names: list[str] | None) -> tuple[str, ...]:
    """Return capabilities in capitals without the prefix `CAP_`, which some engines keep and others drop."""
    return tuple(sorted(name.upper().removeprefix("CAP_") for name in names or ()))


def _mount(raw: Mapping[str, Any]) -> Mount:
    """Read a mount. The generated name of an anonymous volume is left out."""
    anonymous = raw["Type"] == "volume" and _GENERATED_NAME.fullmatch(raw.get("Name", ""))
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


def listed(raw: Mapping[str, Any]) -> ContainerSummary:
    """Read a container from a list. Names with a further `/` belong to links, and are left out."""
    names = [name.removeprefix("/") for name in raw.get("Names") or ()]
    networks = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerSummary(
        id=raw["Id"],
        name=next((name for name in names if "/" not in name), ""),
        image=raw["ImageID"],
        labels=raw.get("Labels") or {},
        status=raw["State"],
        networks={
            name: Endpoint(endpoint.get("IPAddress") or "", endpoint.get("MacAddress") or "")
            for name, endpoint in networks.items()
        },
        mounts=tuple(
            Mount(
                each["Type"],
                each.get("Destination", ""),
                each.get("Source") or "",
                read_only=not each.get("RW", True),
            )
            for each in raw.get("Mounts") or ()
        ),
        namespace=_namespace((raw.get("HostConfig") or {}).get("NetworkMode") or ""),
        volumes=_volumes(raw),
    )


def _volumes(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of a container's volumes, by their places in it."""
    mounts = raw.get("Mounts") or ()
    return {each["Destination"]: each["Name"] for each in mounts if each["Type"] == "volume" and each.get("Name")}


def _namespace(network_mode: str) -> str:
    """Return the container whose network another one uses, or an empty string."""
    kind, _, container = network_mode.partition(":")
    return container if kind == "container" else ""


def network_view(raw: Mapping[str, Any]) -> NetworkView:
    """Read a network, without its IPv6 subnets."""
    pools = (raw.get("IPAM") or {}).get("Config") or []
    ranges = [_ipv4(pool.get("IPRange")) for pool in pools]
    return NetworkView(
        id=raw["Id"],
        name=raw["Name"],
        driver=raw["Driver"],
        internal=bool(raw.get("Internal")),
        ipv6=bool(raw.get("EnableIPv6")),
        subnets=tuple(subnet for pool in pools if (subnet := _ipv4(pool.get("Subnet")))),
        gateway=next((pool["Gateway"] for pool in pools if pool.get("Gateway") and _ipv4(pool.get("Subnet"))), ""),
        ip_range=next((found for found in ranges if found), None),
        options=raw.get("Options") or {},
        labels=raw.get("Labels") or {},
    )


def bridge_of(network: NetworkView) -> str:
    """Return the name of a bridge network's interface on the host."""
    return network.options.get("com.docker.network.bridge.name") or f"br-{network.id[:12]}"


def image_form(raw: Mapping[str, Any]) -> built.Form:
    """Read the properties of an image that identify it as ours."""
    config = raw.get("Config") or {}
    return built.Form(
        id=raw["Id"],
        references=tuple(raw.get("RepoTags") or ()),
        labels=config.get("Labels") or {},
        architecture=raw.get("Architecture") or "",
        system=raw.get("Os") or "",
        created=raw.get("Created") or "",
        layers=tuple((raw.get("RootFS") or {}).get("Layers") or ()),
        extras=tuple(built.extras(config)),
    )


def volume_view(raw: Mapping[str, Any]) -> VolumeView:
    """Read a volume."""
    return VolumeView(raw["Name"], raw.get("Driver") or "", raw.get("Options") or {}, raw.get("Labels") or {})


def is_own_volume(raw: Mapping[str, Any], project: str) -> bool:
    """Whether a volume was created with a container of the project: an anonymous one, or one for agents' trust."""
    found = {key: text for key, text in (raw.get("Labels") or {}).items() if key != _ANONYMOUS}
    if (raw.get("Driver"), raw.get("Options") or {}) != ("local", {}):
        return False
    if found.pop(labels.TRUST, None) is not None:
        return found == labels.ownership_labels(project) and raw["Name"].startswith(trust_name(project))
    return found == labels.ownership_labels(project) and bool(_GENERATED_NAME.fullmatch(raw["Name"]))


def event_view(raw: Mapping[str, Any]) -> Event:
    """Read an event. In an action such as `exec_start: fwctl probe`, the part after the colon is its `words`."""
    actor = raw.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    kind, identity = raw.get("Type", ""), actor.get("ID", "")
    action, _, words = raw.get("Action", "").partition(": ")
    names = (attributes.get("name", ""), attributes.get("oldName", "").removeprefix("/"))
    return Event(
        kind=kind,
        action=action,
        names=tuple(name for name in (*names, identity if kind == "image" else "") if name),
        container=identity if kind == "container" else attributes.get("container", ""),
        words=words.strip(),
        run=attributes.get("execID", ""),
    )


def _ipv4(text: str | None) -> IPv4Network | None:
    network = ip_network(text, strict=False) if text else None
    return network if isinstance(network, IPv4Network) else None
