"""Whether each agent is confined: by how its container was created, and by the networks that it is on. Pure.

An agent is judged by what the engine says about it, never by anything that it says or does itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from clawker_fw.model import ContainerView, NetworkView, Observed, Role, Verdict
from clawker_fw.reconcile.exposure import ENGINE_FOLDER, Exposure
from clawker_fw.stack.topology import Addressing, network_names

_ESCAPES = frozenset({"ALL", "BPF", "DAC_READ_SEARCH", "NET_ADMIN", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO"})
"""Capabilities with which a container can change its own network, or reach the host."""

_RAW = "NET_RAW"
_WITHOUT_HOST = {
    "com.docker.network.bridge.inhibit_ipv4": "true",
    "com.docker.network.bridge.gateway_mode_ipv4": "isolated",
}
"""Options of a network on which the host has no address."""


class Confinement(StrEnum):
    """How well an agent is confined. `weak` is a warning only."""

    FENCED = "fenced"
    WEAK = "weak"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Opening:
    """One way around the firewall: a stable code, and a phrase.

    It is `certain` unless it depends on files that another agent may have made.
    """

    code: str
    phrase: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent. `since` is when it was started (RFC 3339), `address` the one on the agent network.

    `openings` make it open, `weaknesses` weak.
    """

    id: str
    name: str
    image: str
    address: str
    since: str
    openings: tuple[Opening, ...] = ()
    weaknesses: tuple[Opening, ...] = ()

    @property
    def confinement(self) -> Confinement:
        """How well it is confined."""
        if self.openings:
            return Confinement.OPEN
        return Confinement.WEAK if self.weaknesses else Confinement.FENCED

    @property
    def certainly_open(self) -> bool:
        """Whether it is open for a reason that no other agent can bring about."""
        return any(each.certain for each in self.openings)


def running_resolver(observed: Observed) -> str:
    """Return the address at which agents of the stack as it is ask for names, or an empty string without one."""
    network = observed.networks.get(Role.AGENTS)
    subnet = next(iter(network.subnets), None) if network else None
    return str(Addressing(subnet, subnet).service) if subnet else ""


def judge(
    observed: Observed, project: str, ways: frozenset[Path], exposures: Iterable[Exposure]
) -> tuple[Agent, ...]:
    """Return every agent of a stack, sorted by name.

    `ways` are the paths that lead to the engine, and `exposures` the mounts through which agents can write the
    settings.
    """
    place = _Place(
        network_names(project)[Role.AGENTS],
        running_resolver(observed),
        {each.name: each for each in observed.others},
        {each.id: each for each in observed.agents},
        observed.joined,
        {each.container.id: each.container.name for each in (*observed.siblings.values(), *observed.leftovers)},
    )
    written: dict[str, list[Exposure]] = {}
    for each in exposures:
        written.setdefault(each.container, []).append(each)
    return tuple(
        Agent(
            id=view.id,
            name=view.name,
            image=view.reference or view.image,
            address=view.connected.get(place.own, ""),
            since=view.started,
            openings=(
                *_network(view, place),
                *_privileges(view),
                *_mounts(view, ways, written.get(view.name, ())),
            ),
            weaknesses=(*_raw(view), *_host_addresses(view, place)),
        )
        for view in observed.agents
    )


def verdict(found: Verdict, agents: Iterable[Agent]) -> Verdict:
    """Return the verdict on a stack: that on its siblings, but `open` if any agent is open."""
    return Verdict.OPEN if any(each.openings for each in agents) else found


@dataclass(frozen=True, slots=True)
class _Place:
    """What agents are judged by: the agent network, its resolver, other networks by name, the agents by id.

    `joined` has the ids of those that use another container's network, each with the id of that container, and
    `siblings` the names of our containers by their ids.
    """

    own: str
    resolver: str
    others: Mapping[str, NetworkView]
    agents: Mapping[str, ContainerView]
    joined: Mapping[str, str]
    siblings: Mapping[str, str]

    def owner(self, view: ContainerView) -> ContainerView | None:
        """Return the agent whose network an agent uses, usually itself; None if it is no agent, or has gone."""
        return self.agents.get(self.joined.get(view.id, view.id))

    def sibling(self, view: ContainerView) -> str:
        """Return the name of the sibling whose network an agent uses, or an empty string."""
        return self.siblings.get(self.joined.get(view.id, ""), "")


def _network(joining: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield the ways around on the network. Whoever uses another's network has its DNS servers, too."""
    if sibling := place.sibling(joining):
        yield Opening("sibling-network", f"it uses the network of {sibling}, a part of the firewall")
    view = place.owner(joining)
    if view is None:
        return
    if view.network_mode == "host":
        yield Opening("host-network", "it is on the host's network")
    for name in sorted(set(view.connected) - {place.own}):
        if name not in place.others or not place.others[name].internal:
            yield Opening("network", f"the network {name} has a way out")
    if not view.shape.dns:
        yield Opening("dns", "without a DNS server of its own, the engine asks the host's")
    elif servers := sorted(set(view.shape.dns) - {place.resolver}):
        yield Opening("dns", f"it asks another DNS server, {', '.join(servers)}")
    if any(_switches_ipv6_on(*each) for each in view.shape.sysctls.items()):
        yield Opening("ipv6", "IPv6 is switched on")


def _switches_ipv6_on(name: str, value: str) -> bool:
    return name.startswith("net.ipv6.") and name.endswith(".disable_ipv6") and value.strip() == "0"


def _privileges(view: ContainerView) -> Iterator[Opening]:
    shape = view.shape
    if shape.privileged:
        yield Opening("privileged", "it is privileged")
    if escapes := sorted(_ESCAPES & {each.upper() for each in shape.capabilities_added}):
        yield Opening("capability", f"it has {', '.join(escapes)}")
    if shape.pid_mode == "host":
        yield Opening("host-pid", "it sees the processes of the host")
    if shape.devices or shape.device_rules:
        yield Opening("device", f"it has devices of the host, {', '.join((*shape.devices, *shape.device_rules))}")
    if shape.system_paths and not shape.privileged:
        yield Opening("system-paths", "the host's kernel settings are open to it")


def _mounts(view: ContainerView, ways: frozenset[Path], exposures: Iterable[Exposure]) -> Iterator[Opening]:
    for mount in view.shape.mounts:
        source = Path(mount.source)
        if mount.kind == "bind" and (source in ways or source.is_relative_to(ENGINE_FOLDER)):
            yield Opening("engine", f"{mount.source} leads to the engine")
    for each in exposures:
        yield Opening("settings", f"it can write {each.file}, through {each.target}", certain=each.certain)


def _raw(view: ContainerView) -> Iterator[Opening]:
    """Yield a warning if an agent may send raw packets: it can pose as a neighbour, and use IPv6 to the host."""
    shape = view.shape
    added = _RAW in shape.capabilities_added
    if added or not {_RAW, "ALL"} & set(shape.capabilities_dropped):
        yield Opening("raw-packets", "with NET_RAW it can pose as a neighbour, and reach the host over IPv6")


def _host_addresses(joining: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield a warning for each internal network on which the host has an address."""
    view = place.owner(joining) or joining
    for name in sorted((set(view.connected) & set(place.others)) - {place.own}):
        network = place.others[name]
        if network.internal and network.gateway and not (_WITHOUT_HOST.items() & network.options.items()):
            yield Opening(
                "host-address", f"on the network {name} it reaches what the host serves at {network.gateway}"
            )
