"""Attach containers that nobody can attach at their start: the tasks of a swarm's services.

A service can only use networks that a swarm knows, and the agent network is known to its engine alone. So a
service is put on an internal network of the swarm, on which it reaches nothing, and a watcher connects each of its
tasks to the agent network. Until then a task has no way at all.
"""

from dataclasses import dataclass

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError
from clawker_fw.model import Observed, Role


@dataclass(frozen=True, slots=True)
class Admitted:
    """A container that was attached to the agent network. `error` says why it was not."""

    name: str
    id: str
    image: str
    error: str = ""


class Admission:
    """Attaches the containers on one network, by its name, and remembers those that could not be."""

    def __init__(self, network: str) -> None:
        """Store the name. An empty one is that of no network."""
        self._network = network
        self._refused: frozenset[tuple[str, str]] = frozenset()

    def act(self, engine: EngineWriter, observed: Observed) -> tuple[Admitted, ...]:
        """Attach those that are not yet. Return these, and those that can't be, each once for the same reason."""
        agents = observed.networks.get(Role.AGENTS)
        if not self._network or agents is None:
            return ()
        waiting = [
            each
            for each in observed.listing
            if each.attached and self._network in each.networks and agents.name not in each.networks
        ]
        if not waiting:
            return ()
        problem = self._problem(engine)
        done = [
            Admitted(each.name, each.id, each.image, problem or _connected(engine, agents.id, each.id))
            for each in waiting
        ]
        before, self._refused = self._refused, frozenset((each.id, each.error) for each in done if each.error)
        return tuple(each for each in done if not each.error or (each.id, each.error) not in before)

    def _problem(self, engine: EngineWriter) -> str:
        """Return why nobody on the network may be attached, or nothing: a way out would be one for all agents."""
        try:
            found = next((each for each in engine.networks() if each.name == self._network), None)
        except EngineError as error:
            return error.in_one_line
        if found is None:
            return f"The network {self._network} has gone."
        return "" if found.internal else f"The network {self._network} has a way out: create it with --internal."


def _connected(engine: EngineWriter, network: str, container: str) -> str:
    try:
        engine.connect(network, container, "")
    except EngineError as error:
        return error.in_one_line
    return ""
