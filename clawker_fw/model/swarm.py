"""A swarm, as its manager knows it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SwarmNode:
    """A node. `name` is its host name, and `address` the one that others in the swarm know it by.

    `state` is the manager's term (`ready down disconnected unknown`), `availability` what it may be given
    (`active pause drain`), and `role` is `manager` or `worker`. `itself` is whether it is the engine that was
    asked.
    """

    id: str
    name: str
    address: str
    state: str
    availability: str
    role: str
    itself: bool


@dataclass(frozen=True, slots=True)
class SwarmTask:
    """What a node should run of a service.

    `state` is the manager's term: one with a health check is `running` only while it is healthy. `words` are what
    the manager says about it.
    """

    node: str
    service: str
    project: str
    """The value of the label by which the service was found."""
    state: str
    since: str
    """When it got into this state (RFC 3339)."""
    words: str


@dataclass(frozen=True, slots=True)
class Swarm:
    """The nodes of a swarm, and the tasks that were asked for, the latest of each service on each node."""

    nodes: tuple[SwarmNode, ...]
    tasks: tuple[SwarmTask, ...]
