"""Reads a container's shape from the engine's API, and writes it when creating one.

Most fields of a shape are one option of the API. A new field needs one line in these tables and one in `Shape`. An
option without a value is left out, so that the shape has its default. `devkit/ignored.py` lists ignored options.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from clawker_fw.model.containers import ContainerSpec, Healthcheck, Mount, Shape
from clawker_fw.stack import labels
from clawker_fw.stack.container import LIMITED

_NANOSECONDS = 1_000_000_000

GENERATED_NAME = re.compile("[0-9a-f]{64}")
"""The form of a generated volume name."""

_LOG_BOUNDS = {"max-file", "max-size"}
"""The relevant log options. The engine adds others from its daemon.json, such as `tag`."""

_MASKED = {
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug"),
    *("/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
}
_READ_ONLY = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
"""The paths that every supported engine masks, or makes read-only, by default. Later engines add more."""

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
"""Options that the firewall never sets, and for which no engine has its own default."""

_PROCESSOR_LIMITS = (
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpusetCpus",
    "CpusetMems",
    "NanoCpus",
)


def _frozen(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field of a shape
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def runtime(name: str | None) -> str:
    """Return the name of a runtime, or "" for the engines' names of runc."""
    return "" if name in {None, "", "runc", "io.containerd.runc.v2"} else str(name)


def _capabilities(names: list[str]) -> tuple[str, ...]:
    """Return capabilities in capitals without the prefix `CAP_`, which some engines keep and others drop."""
    return tuple(sorted(name.upper().removeprefix("CAP_") for name in names))


def read_ports(raw: Mapping[str, list[Mapping[str, str]] | None] | None) -> tuple[str, ...]:
    """Return published ports in a shape's form, sorted. An empty address means all addresses."""
    return tuple(
        sorted(
            f"{binding.get('HostIp') or ''}:{binding.get('HostPort') or ''}:{port}"
            for port, bindings in (raw or {}).items()
            for binding in bindings or ()
        )
    )


def _write_ports(ports: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for published in ports:
        host, at, port = published.split(":")
        bindings.setdefault(port, []).append({"HostIp": host, "HostPort": at})
    return bindings


def _read_ulimits(ulimits: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    limits = {ulimit["Name"]: (ulimit["Soft"], ulimit["Hard"]) for ulimit in ulimits if ulimit["Name"] in LIMITED}
    return {name: str(soft) if soft == hard else f"{soft}:{hard}" for name, (soft, hard) in limits.items()}


def _write_ulimits(limits: Mapping[str, str]) -> list[dict[str, object]]:
    both = {name: limit.partition(":")[::2] for name, limit in limits.items()}
    return [{"Name": name, "Soft": int(soft), "Hard": int(hard or soft)} for name, (soft, hard) in both.items()]


def _read_log(raw: Mapping[str, Any]) -> dict[str, str]:
    bounds = {name: text for name, text in (raw.get("Config") or {}).items() if name in _LOG_BOUNDS}
    return {"driver": raw.get("Type", ""), **bounds}


def _write_log(log: Mapping[str, str]) -> dict[str, object]:
    return {"Type": log["driver"], "Config": {name: text for name, text in log.items() if name != "driver"}}


def _read_healthcheck(raw: Mapping[str, Any]) -> Healthcheck:
    return Healthcheck(
        test=tuple(raw.get("Test") or ())[1:],
        interval=raw.get("Interval", 0) / _NANOSECONDS,
        timeout=raw.get("Timeout", 0) / _NANOSECONDS,
        retries=raw.get("Retries", 0),
        start_period=raw.get("StartPeriod", 0) / _NANOSECONDS,
    )


def _write_healthcheck(check: Healthcheck) -> dict[str, object]:
    return {
        "Test": ["CMD", *check.test],
        "Interval": int(check.interval * _NANOSECONDS),
        "Timeout": int(check.timeout * _NANOSECONDS),
        "Retries": check.retries,
        "StartPeriod": int(check.start_period * _NANOSECONDS),
    }


class _Option(NamedTuple):
    """A field of a shape and its API option, with functions that read and write it."""

    field: str
    name: str
    read: Callable[[Any], Any] = _frozen
    write: Callable[[Any], Any] = _plain


_CONFIG = (
    _Option("entrypoint", "Entrypoint"),
    _Option("command", "Cmd"),
    _Option("environment", "Env"),
    _Option("user", "User"),
    _Option("working_directory", "WorkingDir"),
    _Option("domain_name", "Domainname"),
    _Option("healthcheck", "Healthcheck", _read_healthcheck, _write_healthcheck),
)
_HOST_CONFIG = (
    _Option("init", "Init"),
    _Option("tmpfs", "Tmpfs"),
    _Option("read_only", "ReadonlyRootfs"),
    _Option("privileged", "Privileged"),
    _Option("capabilities_added", "CapAdd", _capabilities),
    _Option("capabilities_dropped", "CapDrop", _capabilities),
    _Option("security_options", "SecurityOpt"),
    _Option("sysctls", "Sysctls"),
    _Option("devices", "Devices", lambda devices: tuple(device["PathOnHost"] for device in devices)),
    _Option("device_rules", "DeviceCgroupRules"),
    _Option(
        "device_requests",
        "DeviceRequests",
        lambda requests: tuple(json.dumps(request, sort_keys=True) for request in requests),
    ),
    _Option("dns", "Dns"),
    _Option("dns_search", "DnsSearch"),
    _Option("dns_options", "DnsOptions"),
    _Option("extra_hosts", "ExtraHosts"),
    _Option("links", "Links"),
    _Option("groups", "GroupAdd"),
    _Option("ports", "PortBindings", read_ports, _write_ports),
    _Option("publish_all", "PublishAllPorts"),
    _Option("volumes_from", "VolumesFrom"),
    _Option("runtime", "Runtime", runtime),
    _Option("pid_mode", "PidMode"),
    _Option("ipc_mode", "IpcMode"),
    _Option("cgroup_mode", "CgroupnsMode"),
    _Option("uts_mode", "UTSMode"),
    _Option("userns_mode", "UsernsMode"),
    _Option("cgroup_parent", "CgroupParent"),
    _Option("cpu_shares", "CpuShares"),
    _Option("memory", "Memory"),
    _Option("memory_swap", "MemorySwap"),
    _Option("memory_reservation", "MemoryReservation"),
    _Option("shared_memory", "ShmSize"),
    _Option("pids", "PidsLimit"),
    _Option("ulimits", "Ulimits", _read_ulimits, _write_ulimits),
    _Option("restart", "RestartPolicy", lambda policy: policy.get("Name") or "", lambda name: {"Name": name}),
    _Option("log", "LogConfig", _read_log, _write_log),
)

_UNSET = Shape((), (), {})

_SEVERAL_NETWORKS = (1, 44)
"""The API since which a container can be created on several networks, with MAC addresses."""


def _read(options: Iterable[_Option], raw: Mapping[str, Any]) -> dict[str, Any]:
    values = {option: raw.get(option.name) for option in options}
    return {option.field: option.read(value) for option, value in values.items() if value or value is False}


def _written(options: Iterable[_Option], shape: Shape) -> dict[str, Any]:
    values = {option: getattr(shape, option.field) for option in options}
    return {
        option.name: option.write(value)
        for option, value in values.items()
        if value != getattr(_UNSET, option.field)
    }


def read_shape(raw: Mapping[str, Any]) -> Shape:
    """Return the shape of a container from the engine's description."""
    config, host, identity = raw["Config"], raw["HostConfig"], raw["Id"]
    networks = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    hostname = config.get("Hostname") or ""
    options: dict[str, Any] = {
        "entrypoint": (),
        "command": (),
        **_read(_CONFIG, config),
        **_read(_HOST_CONFIG, host),
    }
    return Shape(
        **options,
        networks={name: _fixed_address(endpoint) for name, endpoint in networks.items()},
        hostname="" if hostname == identity[:12] else hostname,
        terminal=any(config.get(name) for name in ("OpenStdin", "StdinOnce", "Tty")),
        stop_signal=_stop_signal(config),
        mounts=tuple(_mount(mount) for mount in raw.get("Mounts") or ()),
        aliases=_aliases(networks, identity, hostname),
        system_paths=_system_paths(host.get("MaskedPaths"), host.get("ReadonlyPaths")),
        processors=_given(host, _PROCESSOR_LIMITS),
        block_devices=_given(host, _BLOCK_DEVICES),
        further=_given(host, _FURTHER),
    )


def creation(spec: ContainerSpec, version: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the request for a container, and the networks to connect afterwards.

    An IP address always gets the same MAC address, as engines before release 28 derive it (libnetwork,
    `netutils.GenerateMACFromIP`). Later ones choose another at each start, and neighbours would send to the old
    one for up to a minute. Only they accept a MAC address (API 1.44) and several networks.
    """
    shape, networks = spec.shape, sorted(spec.shape.networks.items())
    chosen = tuple(map(int, version.split("."))) >= _SEVERAL_NETWORKS
    at_once = networks if chosen else networks[:1]
    request = {
        **_written(_CONFIG, shape),
        "Image": spec.image,
        "Entrypoint": list(shape.entrypoint),  # even if empty, to override the image's
        "Labels": dict(spec.labels),
        "StopSignal": shape.stop_signal or None,
        "ExposedPorts": {port: {} for port in _write_ports(shape.ports)},
        "HostConfig": {
            **_written(_HOST_CONFIG, shape),
            "NetworkMode": networks[0][0] if networks else "none",
            "Mounts": [_requested(spec, mount) for mount in shape.mounts],
        },
        "NetworkingConfig": {
            "EndpointsConfig": {
                name: {
                    "IPAMConfig": {"IPv4Address": address},
                    **({"MacAddress": hardware_address(address)} if chosen else {}),
                }
                for name, address in at_once
            }
        },
    }
    return request, dict(networks[len(at_once) :])


def hardware_address(address: str) -> str:
    """Return the MAC address that belongs to an IP address."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x42, *IPv4Address(address).packed))


def _requested(spec: ContainerSpec, mount: Mount) -> dict[str, Any]:
    """Return the request for a volume. A named one gets no copy of the image's files."""
    return {
        "Type": "volume",
        "Target": mount.target,
        "Source": mount.source,
        "ReadOnly": mount.read_only,
        "VolumeOptions": {"Labels": labels.volume_labels(spec.labels, mount.source), "NoCopy": bool(mount.source)},
    }


def _mount(raw: Mapping[str, Any]) -> Mount:
    """Read a mount, without the generated name of an anonymous volume."""
    anonymous = raw["Type"] == "volume" and GENERATED_NAME.fullmatch(raw.get("Name", ""))
    source = "" if anonymous else raw.get("Name") or raw.get("Source") or ""
    return Mount(raw["Type"], raw["Destination"], source, read_only=not raw.get("RW", True))


def _given(host: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    values = {name: host[name] for name in names if host.get(name)}
    return tuple(
        f"{name}={value if isinstance(value, str | int) else json.dumps(value, sort_keys=True)}"
        for name, value in values.items()
    )


def _stop_signal(config: Mapping[str, Any]) -> str:
    """Return the stop signal, with the seconds of its timeout if that is not the default."""
    seconds = config.get("StopTimeout")
    return (config.get("StopSignal") or "") + (f" {seconds} s" if seconds is not None else "")


def _system_paths(masked: list[str] | None, read_only: list[str] | None) -> str:
    """Return the paths that lack their default protection. An engine lists none for a privileged container."""
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
