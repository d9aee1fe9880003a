"""The nodes of a swarm as hosts: how each is reached, and what the manager knows where none is. Pure."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from clawker_fw.engine.locate import EngineLocation
from clawker_fw.fleet.hosts import Host, NodeState, Trouble, ordered
from clawker_fw.model import Swarm, SwarmNode
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
    remote = [place for place in reversed(known) if not place.address.startswith("unix://")]
    ways = {name: place for place in remote if (name := urlsplit(place.address).hostname)}
    found = []
    for each in swarm.nodes:
        name = each.name if names.count(each.name) == 1 else f"{each.name} ({each.id[:12]})"
        task = watchers.get(each.id)
        watcher = (task.state, task.since, task.words) if task else (None, "", "")
        state = NodeState(each.state, each.availability, each.role, *watcher)
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
    return EngineLocation(f"ssh://{f'[{node.address}]' if ':' in node.address else node.address}", SOURCE)


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
