"""The nodes of a swarm as hosts: how each is reached, and what the manager knows where none is. Pure."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from clawker_fw.engine.locate import EngineLocation
from clawker_fw.fleet.hosts import Host, ordered
from clawker_fw.fleet.row import NodeState, Trouble
from clawker_fw.model import Swarm, SwarmNode, SwarmTask
from clawker_fw.stack import labels

LABEL = f"{labels.PREFIX}fleet"
"""On a service that runs a watcher on each node. Its value is the project; an empty one is for every project."""

SOURCE = "the swarm"
_READY = "ready"


def nodes(
    swarm: Swarm, project: str, manager: EngineLocation, known: Sequence[EngineLocation]
) -> tuple[Host, ...]:
    """Return each node as a host.

    `manager` is where the engine is that was asked, and `known` are the docker contexts. Two nodes of the same
    name are told apart by their ids.
    """
    watchers = {each.node: each for each in swarm.tasks if each.project in {"", project}}
    names = [each.name for each in swarm.nodes]
    ways = {name: place for place in reversed(known) if (name := _host_of(place))}
    found = []
    for each in swarm.nodes:
        name = each.name if names.count(each.name) == 1 else f"{each.name} ({each.id[:12]})"
        state = _state(each, watchers.get(each.id))
        if each.state != _READY and not each.itself:
            found.append(Host(name, None, _away(each), state))
            continue
        place = manager if each.itself else _way(each, ways)
        found.append(Host(name, place, None if place else _unknown_way(each), state))
    return ordered(found)


def _way(node: SwarmNode, ways: Mapping[str, EngineLocation]) -> EngineLocation | None:
    """Return how a node is reached: by a docker context for its name or its address, else over ssh."""
    for each in (node.name, node.address):
        if each and each in ways:
            return ways[each]
    if not node.address:
        return None
    return EngineLocation(f"ssh://{_in_address(node.address)}", SOURCE)


def _in_address(address: str) -> str:
    try:
        return f"[{address}]" if ip_address(address).version == 6 else address  # noqa: PLR2004 - that of IP
    except ValueError:
        return address


def _host_of(place: EngineLocation) -> str:
    """Return the host name in an address, or "" for a socket of this machine."""
    return "" if place.address.startswith("unix://") else urlsplit(place.address).hostname or ""


def _state(node: SwarmNode, task: SwarmTask | None) -> NodeState:
    watcher = (task.state, task.since, task.words) if task else (None, "", "")
    return NodeState(node.state, node.availability, node.role, *watcher)


def _away(node: SwarmNode) -> Trouble:
    return Trouble(
        "node-away",
        f"The manager of the swarm says that the node {node.name} is {node.state}.",
        (),
        "Start its machine or its engine; `docker node ls` shows when it is back.",
    )


def _unknown_way(node: SwarmNode) -> Trouble:
    return Trouble(
        "node-without-address",
        f"Nobody knows how to reach the node {node.name}.",
        ("the manager of the swarm knows no address of it",),
        f"Create a docker context whose endpoint has the host name {node.name}.",
    )
