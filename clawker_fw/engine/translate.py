"""Translates the engine's answers (inspected objects, lists, events) into the model's terms.

Only fields that we set or compare are read, without the engine's defaults. `shapes.py` reads a container's shape.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from pathlib import PurePosixPath
from typing import Any

from clawker_fw.engine.shapes import GENERATED_NAME, read_ports, read_shape
from clawker_fw.model.containers import ContainerSummary, ContainerView, Mount
from clawker_fw.model.engines import Event
from clawker_fw.model.networks import Endpoint, NetworkView
from clawker_fw.model.volumes import VolumeView
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME, trust_name
from clawker_fw.stack.image_tar import our_tags

_ANONYMOUS = "com.docker.volume.anonymous"
"""The label with which newer engines mark anonymous volumes."""

LOCAL_LOGS = frozenset({"", "json-file", "local", "journald", "none"})
"""The log drivers that keep logs on the Docker host. All others, except `syslog`, send them elsewhere."""

LOCAL_SYSLOG = re.compile(r"|(unix|unixgram)://.*|(udp|tcp|tcp\+tls)://(127\.[\d.]+|\[::1\]|localhost)(:\d+)?")
"""The addresses of a `syslog` on the Docker host. Its administrator decides where it sends them."""


def container_view(raw: Mapping[str, Any]) -> ContainerView:
    """Read a container.

    `resolv.conf` shows whose network it uses: the engine keeps it in a folder named after that container's id.
    """
    state, config, host = raw["State"], raw["Config"], raw["HostConfig"]
    container_labels, log = config.get("Labels") or {}, host.get("LogConfig") or {}
    networks = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerView(
        id=raw["Id"],
        name=raw["Name"].removeprefix("/"),
        image=raw["Image"],
        labels=container_labels,
        shape=read_shape(raw),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        started=state.get("StartedAt", ""),
        exit_code=state.get("ExitCode", 0),
        restarts=raw.get("RestartCount", 0),
        connected={name: endpoint.get("IPAddress") or "" for name, endpoint in networks.items()},
        remembered={name: endpoint.get("NetworkID") or "" for name, endpoint in networks.items()},
        reference=config.get("Image") or "",
        network_mode=host.get("NetworkMode") or "",
        network_owner=PurePosixPath(raw.get("ResolvConfPath") or "").parent.name,
        logs_to=_logs_to(log),
        may_lose_lines=(log.get("Config") or {}).get("mode") == "non-blocking",
        project=labels.project_of_container(container_labels, _requested_labels(host)),
        volumes=_volumes(raw),
        requested={
            name: addresses
            for name, endpoint in networks.items()
            if (addresses := _requested_addresses(endpoint, config.get("MacAddress") or ""))
        },
        published=read_ports((raw.get("NetworkSettings") or {}).get("Ports")),
    )


def _requested_addresses(endpoint: Mapping[str, Any], hardware: str) -> tuple[str, ...]:
    """Return the requested addresses on a network. Old engines report `hardware` for the container.

    Later ones report it for the endpoint, which has a MAC address of the engine's choice while the container runs.
    """
    config = endpoint.get("IPAMConfig") or {}
    addresses = (config.get("IPv4Address"), config.get("IPv6Address"), *(config.get("LinkLocalIPs") or ()))
    unconnected = "" if endpoint.get("EndpointID") else endpoint.get("MacAddress")
    return tuple(filter(None, (*addresses, hardware or unconnected)))


def _requested_labels(host: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Return the labels with which the volume for our files was requested, or None if it was not requested."""
    for mount in host.get("Mounts") or ():
        if mount.get("Target") == VOLUME and mount.get("Type") == "volume" and not mount.get("Source"):
            return (mount.get("VolumeOptions") or {}).get("Labels") or {}
    return None


def _logs_to(log: Mapping[str, Any]) -> str:
    """Return the driver of a log that leaves the host, or "". Syslog needs an address."""
    driver = log.get("Type") or ""
    address = str((log.get("Config") or {}).get("syslog-address") or "")
    if driver == "syslog":
        return "" if LOCAL_SYSLOG.fullmatch(address) else driver
    return "" if driver in LOCAL_LOGS else driver


def container_summary(raw: Mapping[str, Any]) -> ContainerSummary:
    """Read a container from a list, without names that contain a further `/`, which belong to links."""
    names = [name.removeprefix("/") for name in raw.get("Names") or ()]
    mode, _, container = ((raw.get("HostConfig") or {}).get("NetworkMode") or "").partition(":")
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
                mount["Type"],
                mount.get("Destination", ""),
                mount.get("Source") or "",
                read_only=not mount.get("RW", True),
            )
            for mount in raw.get("Mounts") or ()
        ),
        namespace=container if mode == "container" else "",
        volumes=_volumes(raw),
    )


def _volumes(raw: Mapping[str, Any]) -> dict[str, str]:
    mounts = raw.get("Mounts") or ()
    return {
        mount["Destination"]: mount["Name"] for mount in mounts if mount["Type"] == "volume" and mount.get("Name")
    }


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
        ip_range=next((network for network in ranges if network), None),
        options=raw.get("Options") or {},
        labels=raw.get("Labels") or {},
    )


def unreadable_network(raw: Mapping[str, Any], reason: str) -> NetworkView:
    """Return a network with only its id, its name and the `reason` why it can't be read."""
    bare = network_view({"Id": str(raw["Id"]), "Name": str(raw.get("Name") or raw["Id"]), "Driver": ""})
    return replace(bare, unreadable=reason)


def bridge_of(network: NetworkView) -> str:
    """Return the name of a bridge network's interface on the host."""
    return network.options.get("com.docker.network.bridge.name") or f"br-{network.id[:12]}"


def own_tags(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tags that we gave an image; none if it is not ours."""
    image_labels = (raw.get("Config") or {}).get("Labels") or {}
    layers = (raw.get("RootFS") or {}).get("Layers") or ()
    return our_tags(raw.get("RepoTags") or (), image_labels, raw.get("Architecture") or "", layers)


def volume_view(raw: Mapping[str, Any]) -> VolumeView:
    """Read a volume."""
    return VolumeView(raw["Name"], raw.get("Driver") or "", raw.get("Options") or {}, raw.get("Labels") or {})


def is_own_volume(raw: Mapping[str, Any], project: str) -> bool:
    """Whether a volume was created with a project's container: an anonymous one, or one for agents' trust."""
    volume_labels = {key: text for key, text in (raw.get("Labels") or {}).items() if key != _ANONYMOUS}
    if (raw.get("Driver"), raw.get("Options") or {}) != ("local", {}):
        return False
    for_trust = volume_labels.pop(labels.TRUST, None) is not None
    if volume_labels != labels.ownership_labels(project):
        return False
    name = raw["Name"]
    return name.startswith(trust_name(project)) if for_trust else bool(GENERATED_NAME.fullmatch(name))


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
