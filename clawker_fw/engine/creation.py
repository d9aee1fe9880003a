"""Translation of a shape into the Docker SDK's parameters for creating a container."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

from docker.types import EndpointConfig, HostConfig, LogConfig, Ulimit
from docker.types import Mount as VolumeMount
from docker.utils import version_lt

from clawker_fw.model import (
    ContainerSpec,
    Mount,
    Shape,
)
from clawker_fw.stack import labels

_NANOSECONDS = 1_000_000_000


def healthcheck(shape: Shape) -> dict[str, Any] | None:
    """Return the HEALTHCHECK of a shape. The API's times are in nanoseconds."""
    check = shape.healthcheck
    if check is None:
        return None
    return {
        "test": ["CMD", *check.test],
        "interval": int(check.interval * _NANOSECONDS),
        "timeout": int(check.timeout * _NANOSECONDS),
        "retries": check.retries,
        "start_period": int(check.start_period * _NANOSECONDS),
    }


def host_config(spec: ContainerSpec, network: str, version: str) -> HostConfig:
    """Return the HostConfig of a container."""
    shape = spec.shape
    options = dict(shape.log)
    host = HostConfig(
        version=version,
        network_mode=network,
        mounts=[_volume(spec, mount) for mount in shape.mounts],
        read_only=shape.read_only,
        cap_add=list(shape.capabilities_added),
        cap_drop=list(shape.capabilities_dropped),
        security_opt=list(shape.security_options),
        sysctls=dict(shape.sysctls),
        dns=list(shape.dns) or None,
        dns_search=list(shape.dns_search) or None,
        dns_opt=list(shape.dns_options) or None,
        tmpfs=dict(shape.tmpfs),
        ipc_mode=shape.ipc_mode or None,
        init=shape.init,
        runtime=shape.runtime or None,
        shm_size=shape.shared_memory or None,
        cpu_shares=shape.cpu_shares or None,
        mem_limit=shape.memory or None,
        memswap_limit=shape.memory_swap or None,
        pids_limit=shape.pids or None,
        ulimits=[_ulimit(name, limit) for name, limit in shape.ulimits.items()] or None,
        restart_policy={"Name": shape.restart} if shape.restart else None,
        port_bindings=_bindings(shape) or None,
        log_config=LogConfig(type=options.pop("driver"), config=options) if options else None,
    )
    if shape.cgroup_mode:
        host["CgroupnsMode"] = shape.cgroup_mode
    return host


def exposed(shape: Shape) -> list[tuple[str, str]]:
    """Return the ports of a container that are published, each with its protocol."""
    return sorted({(port, protocol) for _, _, port, protocol in _ports(shape)})


def _ports(shape: Shape) -> Iterator[tuple[str, str, str, str]]:
    """Yield the address, the port there, the container's port and the protocol of each published port."""
    for each in shape.ports:
        host, at, last = each.split(":")
        port, _, protocol = last.partition("/")
        yield host, at, port, protocol


def _bindings(shape: Shape) -> dict[int | str, list[tuple[str, str]]]:
    found: dict[int | str, list[tuple[str, str]]] = {}
    for host, at, port, protocol in _ports(shape):
        found.setdefault(f"{port}/{protocol}", []).append((host, at))
    return found


def _volume(spec: ContainerSpec, mount: Mount) -> VolumeMount:
    """Return the request for a volume. One with a name gets nothing of what the image has at its place."""
    of = labels.named_volume_labels if mount.source else labels.volume_labels
    return VolumeMount(
        mount.target,
        mount.source or None,
        read_only=mount.read_only,
        labels=of(spec.labels),
        no_copy=bool(mount.source),
    )


def endpoints(networks: Mapping[str, str], version: str) -> dict[str, EndpointConfig]:
    """Return the endpoints that a container can be created with: later engines take all, former ones only one.

    An address always has the same hardware address, as with engines before release 28, which derive it alike
    (libnetwork, `netutils.GenerateMACFromIP`). Later ones choose another one at each start, and neighbours would
    send to the former one for up to a minute; only they let it be chosen (API 1.44).
    """
    places = sorted(networks.items())
    if version_lt(version, "1.44"):
        return {name: EndpointConfig(version, ipv4_address=address) for name, address in places[:1]}
    return {
        name: EndpointConfig(version, ipv4_address=address, mac_address=hardware_address(address))
        for name, address in places
    }


def hardware_address(address: str) -> str:
    """Return the hardware address that belongs to an address."""
    return ":".join(f"{each:02x}" for each in (0x02, 0x42, *IPv4Address(address).packed))


def _ulimit(name: str, limit: str) -> Ulimit:
    soft, _, hard = limit.partition(":")
    return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
