"""Classifies each agent's confinement by its container's configuration and networks. Pure.

Only the engine's records count, never anything that an agent says or does.
"""

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from clawker_fw.agents import trusted_roots
from clawker_fw.agents.exposure import (
    EngineWays,
    Exposure,
    is_of_network,
    links_to_host,
    mounts_of,
    names_host,
    opens_device,
)
from clawker_fw.agents.namespaces import HOST, Chain, chain
from clawker_fw.model.containers import ContainerView
from clawker_fw.model.differences import Verdict
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.stack import labels, name_list
from clawker_fw.stack.relay import publication_of
from clawker_fw.stack.topology import GATEWAY_MODE, INHIBIT_IPV4, Addressing, network_names

_ESCAPES = frozenset(
    {
        *("ALL", "BPF", "DAC_READ_SEARCH", "NET_ADMIN", "PERFMON", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO"),
        "SYS_TIME",  # the host's clock: rules end by it
    }
)
"""Capabilities that let a container change its own network, or reach the host."""

_RAW = "NET_RAW"
_ORDINARY = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
        *("IPC_LOCK", "SYS_NICE", "SYS_PTRACE"),
    }
)
"""Docker's default capabilities without raw sockets, and those that debuggers and databases need."""

_UNFILTERED = frozenset({"seccomp=unconfined", "seccomp:unconfined"})
_UNCONFINED_BY_APPARMOR = frozenset({"apparmor=unconfined", "apparmor:unconfined"})

_WITHOUT_HOST = {INHIBIT_IPV4: "true", GATEWAY_MODE: "isolated"}
"""Options of a network on which the host has no address."""


class Confinement(StrEnum):
    """How well an agent is confined. `weak` is only a warning."""

    FENCED = "fenced"
    WEAK = "weak"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Opening:
    """A bypass or weakness: a stable code, and a phrase. Not `certain` if other agents may have made its files."""

    code: str
    phrase: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent. `since` is its start (RFC 3339), `address` is on the agent network.

    `openings` make it open, `weaknesses` weak. `published` are its ports that a relay publishes now, as
    `ADDRESS:PORT:CONTAINER_PORT`.
    """

    id: str
    name: str
    image: str
    address: str
    since: str
    openings: tuple[Opening, ...] = ()
    weaknesses: tuple[Opening, ...] = ()
    published: tuple[str, ...] = ()

    @property
    def confinement(self) -> Confinement:
        """The agent's confinement."""
        if self.openings:
            return Confinement.OPEN
        return Confinement.WEAK if self.weaknesses else Confinement.FENCED


def running_resolver(observed: Observed) -> str:
    """Return the address of the resolver for agents of the running stack, or ""."""
    subnet = observed.agents_subnet
    return str(Addressing(subnet, subnet).service) if subnet else ""


def resolving(observed: Observed, now: float) -> Callable[[str], bool]:
    """Return whether the serving CoreDNS's rules answer a name."""
    resolver = observed.siblings.get(Sibling.COREDNS)
    return name_list.answers(resolver.files, now) if resolver else lambda _: False


def judge(
    observed: Observed,
    project: str,
    ways: EngineWays,
    exposures: Iterable[Exposure],
    resolves: Callable[[str], bool],
) -> tuple[Agent, ...]:
    """Return every agent of a stack, sorted by name.

    `ways` lead to the engine, and through `exposures` agents can write the settings. `resolves` is whether the
    rules allow a name.
    """
    place = _Place(observed, project, resolves)
    published = {
        relay.container.labels[labels.RELAY_OF]: tuple(
            port.removesuffix("/tcp") for port in relay.container.published
        )
        for relay in observed.relays
    }
    written: dict[str, list[Exposure]] = {}
    for exposure in exposures:
        written.setdefault(exposure.container, []).append(exposure)
    return tuple(
        Agent(
            id=view.id,
            name=view.name,
            image=view.reference or view.image,
            address=view.connected.get(place.own, ""),
            since=view.started,
            openings=tuple(dict.fromkeys(_openings(view, place, ways, written))),
            weaknesses=(
                *_granted(view),
                *_host_addresses(view, place),
                *_chosen_addresses(view, place),
                *_leaks(view, place),
                *_labels(view, place),
            ),
            published=published.get(view.id, ()),
        )
        for view in observed.agents
    )


def _openings(
    view: ContainerView, place: "_Place", ways: EngineWays, written: Mapping[str, Iterable[Exposure]]
) -> Iterator[Opening]:
    """Yield an agent's bypasses, and those of agents whose processes it sees, because it can control these."""
    processes = chain(view, lambda container: container.shape.pid_mode, place.containers)
    for container in (view, *(container for container in processes.passed if container.id in place.agents)):
        yield from _network(container, place)
        yield from _own_addresses(container, place)
        yield from _privileges(container)
        yield from _mounts(container, place, ways, written.get(container.name, ()))
        yield from _names(container, place)
    yield from _processes(processes, place)
    for container in _memory(view, place).passed:
        if container.id in place.siblings:
            yield Opening("sibling-memory", f"it shares memory with {container.name}, a part of the firewall")


def verdict(verdict: Verdict, agents: Iterable[Agent]) -> Verdict:
    """Return the verdict on a stack: `open` if any agent is open, otherwise its own verdict."""
    return Verdict.OPEN if any(agent.openings for agent in agents) else verdict


class _Place:
    """The context of the checks: the agent network, other networks, and all containers that share namespaces."""

    def __init__(self, observed: Observed, project: str, resolves: Callable[[str], bool]) -> None:
        siblings = (
            *(sibling.container for sibling in (*observed.siblings.values(), *observed.leftovers)),
            *(relay.container for relay in observed.relays),
        )
        network = observed.networks.get(Role.AGENTS)
        subnet = observed.agents_subnet
        self.own = network_names(project)[Role.AGENTS]
        self.resolver = running_resolver(observed)
        self.others = {other.name: other for other in observed.others}
        self.agents = {agent.id: agent for agent in observed.agents}
        self.joined = observed.joined
        self.siblings = {sibling.id: sibling.name for sibling in siblings}
        self.files = {volume: sibling.name for sibling in siblings for volume in sibling.volumes.values()}
        """The volumes of our containers, with the containers' names."""
        self.volumes = observed.volumes
        self.containers = (*observed.agents, *siblings, *observed.companions)
        self.resolves = resolves
        self.range = network.ip_range if network else None
        """The range from which the engine assigns addresses."""
        self.hardware = {
            endpoint.hardware: container.name
            for container in observed.listing
            if container.id in self.siblings
            for endpoint in container.networks.values()
            if endpoint.hardware
        }
        self.trial = observed.trial.id if observed.trial else ""
        self.publishers = {
            agent.id for agent in observed.agents if subnet and publication_of(agent, project, subnet)
        }
        """The agents that publish ports: their address is the one that our label on them implies."""

    def has_our_address(self, view: ContainerView) -> bool:
        """Whether we have chosen the container's requested address."""
        return view.id == self.trial or view.id in self.publishers

    def owner(self, view: ContainerView) -> ContainerView | None:
        """Return the agent whose network an agent uses, usually itself; None if it is gone or not an agent."""
        return self.agents.get(self.joined.get(view.id, view.id))

    def sibling(self, view: ContainerView) -> str:
        """Return the name of the firewall container whose network an agent uses, or ""."""
        return self.siblings.get(self.joined.get(view.id, ""), "")


def _network(joining: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield bypasses of the network. An agent that uses another's network also uses its DNS servers."""
    if sibling := place.sibling(joining):
        yield Opening("sibling-network", f"it uses the network of {sibling}, a part of the firewall")
    view = place.owner(joining)
    if view is None or place.own not in view.connected:
        return  # it is not on the agent network, but has files of the firewall
    if view.network_mode == "host":
        yield Opening("host-network", "it is on the host's network")
    for name in sorted(set(view.connected) - {place.own}):
        if name not in place.others or not place.others[name].internal:
            leave = shlex.join(["docker", "network", "disconnect", name, view.name])
            yield Opening("network", f"the network {name} has a way out (`{leave}`)")
    if not view.shape.dns:
        yield Opening("dns", "it sets no DNS server, so Docker asks the host's")
    elif servers := sorted(set(view.shape.dns) - {place.resolver}):
        yield Opening("dns", f"it uses another DNS server, {', '.join(servers)}")
    if any(_is_about_ipv6(name) and value.strip() == "0" for name, value in view.shape.sysctls.items()):
        yield Opening("ipv6", "IPv6 is switched on")


def _own_addresses(view: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield requested addresses that belong to the firewall, because agents would reach it there."""
    for address in () if place.has_our_address(view) else view.requested.get(place.own, ()):
        if sibling := place.hardware.get(address.lower()):
            yield Opening("address", f"it has the address {address} of {sibling}, a part of the firewall")
        elif place.range and _is_outside(address, place.range):
            yield Opening("address", f"it has the address {address}, which is for parts of the firewall")


def _is_outside(address: str, assigned: IPv4Network) -> bool:
    with suppress(AddressValueError):
        return IPv4Address(address) not in assigned
    return False


def _chosen_addresses(view: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield a warning for requested addresses, which other agents may have had or expect."""
    addresses = view.requested.get(place.own)
    if addresses and not place.has_our_address(view):
        yield Opening("address", f"the engine did not choose its address, {', '.join(addresses)}")


def _privileges(view: ContainerView) -> Iterator[Opening]:
    shape = view.shape
    if shape.privileged:
        yield Opening("privileged", "it is privileged")
    if escapes := sorted(_ESCAPES & set(shape.capabilities_added)):
        yield Opening("capability", f"it has {', '.join(escapes)}")
    # A CDI request by name grants whatever a file on the host defines.
    named = (
        device_request
        for device_request in shape.device_requests
        if json.loads(device_request).get("Driver") == "cdi"
    )
    devices = (*shape.devices, *shape.device_rules, *named)
    if devices:
        yield Opening("device", f"it has devices of the host, {', '.join(devices)}")
    if shape.system_paths and not shape.privileged:
        yield Opening("system-paths", "the host's kernel settings are open to it")


def _processes(chain: Chain, place: _Place) -> Iterator[Opening]:
    """Yield bypasses by visible processes, because an agent can control these."""
    if chain.host:
        yield Opening("host-pid", "it sees the processes of the host")
    for container in chain.passed:
        if container.id in place.siblings:
            yield Opening(
                "sibling-processes", f"it sees the processes of {container.name}, a part of the firewall"
            )
        elif container.id not in place.agents:
            yield Opening("processes", f"it sees the processes of {container.name}, which is not an agent")
    if chain.unknown:
        yield Opening("processes", f"it sees the processes of {chain.unknown}, which is not known")


def _memory(view: ContainerView, place: _Place) -> Chain:
    return chain(view, lambda container: container.shape.ipc_mode, place.containers)


def _names(view: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield names of an agent that rules allow: Docker's resolver leads other agents to it instead of Envoy."""
    aliases = [alias.partition(":")[2] for alias in view.shape.aliases if alias.startswith(f"{place.own}:")]
    for name in dict.fromkeys((view.name, view.shape.hostname, *aliases)):
        if place.own in view.connected and name and place.resolves(name):
            yield Opening("name", f"it is called {name}, so other agents reach it in place of that host")


def _mounts(
    view: ContainerView, place: _Place, ways: EngineWays, exposures: Iterable[Exposure]
) -> Iterator[Opening]:
    for sibling in dict.fromkeys(place.files[volume] for volume in view.volumes.values() if volume in place.files):
        yield Opening("sibling-files", f"it has the files of {sibling}, a part of the firewall")
    for target in trusted_roots.writable(view.shape.mounts, place.volumes):
        yield Opening("trust", f"it can write what agents trust, through {target}")
    yield from _host_folders(view, place, ways)
    for exposure in exposures:
        yield Opening(
            "settings", f"it can write {exposure.file}, through {exposure.target}", certain=exposure.certain
        )


def _host_folders(view: ContainerView, place: _Place, ways: EngineWays) -> Iterator[Opening]:
    """Yield mounts, and volumes made of a folder or device, that lead to the engine or the host."""
    for name in view.volumes.values():
        if name in place.volumes and opens_device(place.volumes[name]):
            yield Opening("host-mount", f"the volume {name} is a file system of the host")
    mounts = mounts_of(view.shape.mounts, view.volumes, place.volumes)
    sources = {mount.source: mount.read_only for mount in mounts if mount.kind == "bind"}
    for source, unwritable in sources.items():
        if ways.reached_by(source):
            yield Opening("engine", f"{source} leads to the engine", certain=ways.named_by(source))
        elif names_host(source, read_only=unwritable):
            yield Opening("host-mount", f"{source} leads to the host's kernel, services or programs")
        elif ways.here and links_to_host(source, read_only=unwritable):
            yield Opening("host-mount", f"{source} is a link into the host's own folders", certain=False)


def _granted(view: ContainerView) -> Iterator[Opening]:
    """Yield a warning for raw packets, and for unusual grants that are not a bypass."""
    shape = view.shape
    if _RAW in shape.capabilities_added or not {_RAW, "ALL"} & set(shape.capabilities_dropped):
        yield Opening("raw-packets", "with NET_RAW it can pose as a neighbour, and reach the host over IPv6")
    if unusual := sorted(set(shape.capabilities_added) - _ORDINARY - _ESCAPES - {_RAW}):
        yield Opening("capability", f"it has {', '.join(unusual)}, which Docker does not grant by default")
    changed = sorted(name for name in shape.sysctls if name.startswith("net.") and not _is_about_ipv6(name))
    if changed:
        yield Opening("sysctl", f"its network has other settings, {', '.join(changed)}")
    for kind, mode in (("UTS", shape.uts_mode), ("user", shape.userns_mode)):
        if mode == HOST:
            yield Opening("host-namespace", f"it uses the {kind} namespace of the host")
    if not shape.privileged and _UNCONFINED_BY_APPARMOR & set(shape.security_options):
        yield Opening("apparmor", "it has no AppArmor profile")


def _is_about_ipv6(name: str) -> bool:
    return name.startswith("net.ipv6.") and name.endswith(".disable_ipv6")


def _labels(view: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield a warning for labels with our prefix. They make nothing ours, but mislead people."""
    ours = {labels.PUBLISHES} if view.id in place.publishers else set()
    if view.id != place.trial and any(label.startswith(labels.PREFIX) for label in {*view.labels} - ours):
        yield Opening("labels", f"it has labels that begin with {labels.PREFIX}, like a part of the firewall")


def _host_addresses(joining: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield a warning per internal network on which the host has an address."""
    view = place.owner(joining) or joining
    for name in sorted((set(view.connected) & set(place.others)) - {place.own}):
        network = place.others[name]
        if network.internal and network.gateway and not (_WITHOUT_HOST.items() & network.options.items()):
            yield Opening(
                "host-address", f"on the network {name} it reaches what the host serves at {network.gateway}"
            )


def _leaks(view: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield a warning per way in which an agent's output, files or memory get elsewhere."""
    if not view.shape.privileged and _UNFILTERED & set(view.shape.security_options):
        yield Opening(
            "seccomp", "without a seccomp profile it can open sockets that no network confines (AF_VSOCK)"
        )
    if view.logs_to:
        yield Opening("log", f"what it prints is sent by the log driver {view.logs_to}")
    for name in sorted(set(view.volumes.values()) & set(place.volumes)):
        volume = place.volumes[name]
        kind = volume.options.get("type", "")
        if volume.driver != "local":
            yield Opening("volume", f"what it writes to the volume {name} goes to the driver {volume.driver}")
        elif is_of_network(kind):
            yield Opening("volume", f"what it writes to the volume {name} is sent over {kind}")
    memory = _memory(view, place)
    strangers = [
        container.name for container in memory.passed if container.id not in {*place.agents, *place.siblings}
    ]
    for sharer in filter(None, ("the host" if memory.host else "", *strangers, memory.unknown)):
        yield Opening("shared-memory", f"it shares memory with programs of {sharer}")
