"""Translation of the engine's answers (inspected objects, lists, events) into the model's terms.

Only fields that we set or compare are read, and the engine's defaults are left out.
"""

import json
import re
from collections.abc import Mapping
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
)
from clawker_fw.stack import built, labels

_NANOSECONDS = 1_000_000_000

_ANONYMOUS = "com.docker.volume.anonymous"
"""The label with which newer engines mark anonymous volumes."""

_GENERATED_NAME = re.compile("[0-9a-f]{64}")
"""The form of a generated volume name."""

_USUAL_RUNTIMES = {None, "", "runc", "io.containerd.runc.v2"}
"""The names that engines give their own runtime, unless another default is configured."""

_PROCESSOR_LIMITS = (
    "CpuCount",
    "CpuPercent",
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
        created=raw["Created"],
        started=state.get("StartedAt", ""),
        exit_code=state.get("ExitCode", 0),
        restarts=raw.get("RestartCount", 0),
        connected={name: endpoint.get("IPAddress") or "" for name, endpoint in networks.items()},
        remembered={name: endpoint.get("NetworkID") or "" for name, endpoint in networks.items()},
        reference=raw["Config"].get("Image") or "",
        network_mode=raw["HostConfig"].get("NetworkMode") or "",
        network_owner=PurePosixPath(raw.get("ResolvConfPath") or "").parent.name,
    )


def _shape(
    config: Mapping[str, Any],
    host: Mapping[str, Any],
    mounts: list[Mapping[str, Any]],
    networks: Mapping[str, Mapping[str, Any]],
    identity: str,
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
        device_rules=tuple(host.get("DeviceCgroupRules") or ()),
        device_requests=tuple(json.dumps(each, sort_keys=True) for each in host.get("DeviceRequests") or ()),
        dns=tuple(host.get("Dns") or ()),
        dns_search=tuple(host.get("DnsSearch") or ()),
        dns_options=tuple(host.get("DnsOptions") or ()),
        extra_hosts=tuple(host.get("ExtraHosts") or ()),
        aliases=_aliases(networks, identity),
        links=tuple(host.get("Links") or ()),
        groups=tuple(host.get("GroupAdd") or ()),
        ports=tuple(sorted(host.get("PortBindings") or {})),
        publish_all=bool(host.get("PublishAllPorts")),
        volumes_from=tuple(host.get("VolumesFrom") or ()),
        runtime="" if host.get("Runtime") in _USUAL_RUNTIMES else host["Runtime"],
        pid_mode=host.get("PidMode") or "",
        ipc_mode=host.get("IpcMode") or "",
        uts_mode=host.get("UTSMode") or "",
        userns_mode=host.get("UsernsMode") or "",
        system_paths="unconfined" if [] in (host.get("MaskedPaths"), host.get("ReadonlyPaths")) else "",
        cgroup_parent=host.get("CgroupParent") or "",
        processors=tuple(f"{name}={host[name]}" for name in _PROCESSOR_LIMITS if host.get(name)),
        cpu_shares=host.get("CpuShares") or 0,
        memory=host.get("Memory") or 0,
        pids=host.get("PidsLimit") or 0,
        open_files=next((each["Hard"] for each in host.get("Ulimits") or () if each["Name"] == "nofile"), 0),
        restart=(host.get("RestartPolicy") or {}).get("Name") or "",
        healthcheck=_healthcheck(config.get("Healthcheck")),
        log={"driver": log.get("Type", ""), **(log.get("Config") or {})},
    )


def _fixed_address(endpoint: Mapping[str, Any]) -> str:
    """Return the requested address, which a container keeps while it is stopped."""
    return str((endpoint.get("IPAMConfig") or {}).get("IPv4Address") or "")


def _aliases(networks: Mapping[str, Mapping[str, Any]], identity: str) -> tuple[str, ...]:
    """Return a container's aliases on its networks, without the short id that engines before 25 add."""
    return tuple(
        f"{network}:{alias}"
        for network in sorted(networks)
        for alias in sorted(networks[network].get("Aliases") or ())
        if not identity.startswith(alias)
    )


def _capabilities(names: list[str] | None) -> tuple[str, ...]:
    """Return capabilities without the prefix `CAP_`, which some engines keep and others drop."""
    return tuple(sorted(name.removeprefix("CAP_") for name in names or ()))


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
        created=raw["Created"],
    )


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


def is_own_volume(raw: Mapping[str, Any], project: str) -> bool:
    """Whether a volume is an anonymous one that was created with a container of the project."""
    found = {key: text for key, text in (raw.get("Labels") or {}).items() if key != _ANONYMOUS}
    plain = (raw.get("Driver"), raw.get("Options") or {}) == ("local", {})
    return plain and found == labels.ownership_labels(project) and bool(_GENERATED_NAME.fullmatch(raw["Name"]))


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
    )


def _ipv4(text: str | None) -> IPv4Network | None:
    network = ip_network(text, strict=False) if text else None
    return network if isinstance(network, IPv4Network) else None
