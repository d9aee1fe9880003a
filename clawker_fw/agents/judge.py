"""Whether each agent is confined: by how its container was created, and by the networks that it is on. Pure.

An agent is judged by what the engine says about it, never by anything that it says or does itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from clawker_fw.agents.exposure import ENGINE_FOLDER, Exposure, bound_folder, is_of_network
from clawker_fw.agents.namespaces import Chain, chain
from clawker_fw.model import ContainerView, NetworkView, Observed, Role, Sibling, Verdict, VolumeView
from clawker_fw.stack import policy
from clawker_fw.stack.topology import Addressing, network_names

_ESCAPES = frozenset(
    {
        *("ALL", "BPF", "DAC_READ_SEARCH", "NET_ADMIN", "PERFMON", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO"),
        "SYS_TIME",  # the host's clock: rules end by it
    }
)
"""Capabilities with which a container can change its own network, or reach the host."""

_UNFILTERED = frozenset({"seccomp=unconfined", "seccomp:unconfined"})
_LOCAL_DRIVER = "local"

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


def resolving(observed: Observed, now: float) -> Callable[[str], bool]:
    """Return whether the rules that are live answer a name, by the list of the CoreDNS that serves."""
    resolver = observed.siblings.get(Sibling.COREDNS)
    return policy.answers(resolver.files, now) if resolver else lambda _: False


def judge(
    observed: Observed, project: str, ways: frozenset[Path], exposures: Iterable[Exposure], now: float
) -> tuple[Agent, ...]:
    """Return every agent of a stack, sorted by name.

    `ways` are the paths that lead to the engine, and `exposures` the mounts through which agents can write the
    settings. `now` is in seconds since 1970: rules end.
    """
    siblings = tuple(each.container for each in (*observed.siblings.values(), *observed.leftovers))
    place = _Place(
        network_names(project)[Role.AGENTS],
        running_resolver(observed),
        {each.name: each for each in observed.others},
        {each.id: each for each in observed.agents},
        observed.joined,
        {each.id: each.name for each in siblings},
        {volume: each.name for each in siblings for volume in each.volumes.values()},
        observed.volumes,
        (*observed.agents, *siblings, *observed.companions),
        resolving(observed, now),
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
            openings=tuple(dict.fromkeys(_openings(view, place, ways, written))),
            weaknesses=(*_raw(view), *_host_addresses(view, place), *_told_elsewhere(view, place)),
        )
        for view in observed.agents
    )


def _openings(
    view: ContainerView, place: "_Place", ways: frozenset[Path], written: Mapping[str, Iterable[Exposure]]
) -> Iterator[Opening]:
    """Yield the ways around of an agent, and those of the agents whose processes it sees: it can be these."""
    processes = chain(view, lambda each: each.shape.pid_mode, place.known)
    for each in (view, *(found for found in processes.passed if found.id in place.agents)):
        yield from _network(each, place)
        yield from _privileges(each)
        yield from _mounts(each, place, ways, written.get(each.name, ()))
        yield from _names(each, place)
    yield from _processes(processes, place)
    yield from _memory_of_siblings(view, place)


def verdict(found: Verdict, agents: Iterable[Agent]) -> Verdict:
    """Return the verdict on a stack: that on its siblings, but `open` if any agent is open."""
    return Verdict.OPEN if any(each.openings for each in agents) else found


@dataclass(frozen=True, slots=True)
class _Place:
    """What agents are judged by: the agent network, its resolver, other networks by name, the agents by id.

    `joined` has the ids of those that use another container's network, each with the id of that container, and
    `siblings` the names of our containers by their ids. `files` are the volumes of these, with the same names, and
    `volumes` all that is known of any. `known` are all containers whose namespaces matter. `resolves` is whether
    the rules that are live answer a name.
    """

    own: str
    resolver: str
    others: Mapping[str, NetworkView]
    agents: Mapping[str, ContainerView]
    joined: Mapping[str, str]
    siblings: Mapping[str, str]
    files: Mapping[str, str]
    volumes: Mapping[str, VolumeView]
    known: tuple[ContainerView, ...]
    resolves: Callable[[str], bool]

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
    if view is None or place.own not in view.connected:
        return  # it is no agent, but has a sibling's files
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
    if shape.devices or shape.device_rules:
        yield Opening("device", f"it has devices of the host, {', '.join((*shape.devices, *shape.device_rules))}")
    if shape.system_paths and not shape.privileged:
        yield Opening("system-paths", "the host's kernel settings are open to it")


def _processes(found: Chain, place: _Place) -> Iterator[Opening]:
    """Yield whose processes an agent sees: it can do whatever these can."""
    if found.host:
        yield Opening("host-pid", "it sees the processes of the host")
    for each in found.passed:
        if each.id in place.siblings:
            yield Opening("sibling-processes", f"it sees the processes of {each.name}, a part of the firewall")
        elif each.id not in place.agents:
            yield Opening("processes", f"it sees the processes of {each.name}, which is no agent")
    if found.unknown:
        yield Opening("processes", f"it sees the processes of {found.unknown}, which is not known")


def _memory_of_siblings(view: ContainerView, place: _Place) -> Iterator[Opening]:
    for each in _memory(view, place).passed:
        if each.id in place.siblings:
            yield Opening("sibling-memory", f"it shares memory with {each.name}, a part of the firewall")


def _memory(view: ContainerView, place: _Place) -> Chain:
    return chain(view, lambda each: each.shape.ipc_mode, place.known)


def _names(view: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield the names of an agent that a rule allows: the engine leads its neighbours to it, and not to Envoy."""
    aliases = [alias.partition(":")[2] for alias in view.shape.aliases if alias.startswith(f"{place.own}:")]
    for name in dict.fromkeys((view.name, view.shape.hostname, *aliases)):
        if place.own in view.connected and name and place.resolves(name):
            yield Opening("name", f"it is called {name}, so other agents reach it in place of that host")


def _mounts(
    view: ContainerView, place: _Place, ways: frozenset[Path], exposures: Iterable[Exposure]
) -> Iterator[Opening]:
    for sibling in dict.fromkeys(place.files[each] for each in view.volumes.values() if each in place.files):
        yield Opening("sibling-files", f"it has the files of {sibling}, a part of the firewall")
    sources = [mount.source for mount in view.shape.mounts if mount.kind == "bind"]
    bound = (bound_folder(place.volumes[each]) for each in view.volumes.values() if each in place.volumes)
    for source in (*sources, *filter(None, bound)):
        if Path(source) in ways or Path(source).is_relative_to(ENGINE_FOLDER):
            yield Opening("engine", f"{source} leads to the engine")
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


def _told_elsewhere(view: ContainerView, place: _Place) -> Iterator[Opening]:
    """Yield a warning for each way on which what it says, or has in memory, gets elsewhere."""
    if not view.shape.privileged and _UNFILTERED & set(view.shape.security_options):
        yield Opening(
            "seccomp", "without a seccomp profile it can open sockets that no network confines (AF_VSOCK)"
        )
    if view.logs_to:
        yield Opening("log", f"what it prints is sent by the log driver {view.logs_to}")
    for name in sorted(set(view.volumes.values()) & set(place.volumes)):
        volume = place.volumes[name]
        kind = volume.options.get("type", "")
        if volume.driver != _LOCAL_DRIVER:
            yield Opening("volume", f"what it writes to the volume {name} goes to the driver {volume.driver}")
        elif is_of_network(kind):
            yield Opening("volume", f"what it writes to the volume {name} is sent over {kind}")
    memory = _memory(view, place)
    strangers = [each.name for each in memory.passed if each.id not in {*place.agents, *place.siblings}]
    for each in filter(None, ("the host" if memory.host else "", *strangers, memory.unknown)):
        yield Opening("shared-memory", f"it shares memory with programs of {each}")
