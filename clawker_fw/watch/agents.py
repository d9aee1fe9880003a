"""What a watcher does about agents: report who comes and goes, act on open ones, attach the tasks of services.

A service can only use networks that a swarm knows, and the agent network is known to its engine alone. So a
service is put on an internal network of the swarm, on which it reaches nothing, and a watcher connects each of its
tasks to the agent network. Until then a task has no way at all.

Nobody may be able to use what is done about an open agent against others. So only an agent that is open by the
record of its own container is acted on, never one that is open because of files that another agent may have made.
It is named by its id, and looked at once more directly before.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.agents.judge import Agent, Opening
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError
from clawker_fw.model.containers import ContainerSummary
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Role
from clawker_fw.watch.reactions import OnOpen


class Change(StrEnum):
    """What an agent has done."""

    CAME = "came"
    MOVED = "moved"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Presence:
    """One change. An agent that has left is as it was last seen; `before` is the address of one that has moved."""

    change: Change
    agent: Agent
    before: str = ""


class Register:
    """The agents whose presence has been reported."""

    def __init__(self) -> None:
        self._known: dict[str, Agent] = {}

    def changes(self, agents: Iterable[Agent]) -> Iterator[Presence]:
        """Yield the changes since the last call."""
        before, self._known = self._known, {agent.id: agent for agent in agents}
        yield from (Presence(Change.LEFT, agent) for id_, agent in before.items() if id_ not in self._known)
        for id_, agent in self._known.items():
            former = before.get(id_)
            if former is None or former.since != agent.since:
                yield Presence(Change.CAME, agent)
            elif former.address != agent.address:
                yield Presence(Change.MOVED, agent, former.address)


@dataclass(frozen=True, slots=True)
class OpenAgent:
    """An open agent, and the action taken. `error` says why that failed."""

    agent: Agent
    action: OnOpen
    error: str = ""


class Guard:
    """Remembers reported open agents, and calls `alive` after each, which may take ten seconds to stop."""

    def __init__(self, on_open: OnOpen, alive: Callable[[], None] = lambda: None) -> None:
        self._on_open = on_open
        self._alive = alive
        self._reported: frozenset[tuple[str, tuple[Opening, ...]]] = frozenset()

    def act(self, engine: EngineWriter, observed: Observed, agents: Iterable[Agent]) -> tuple[OpenAgent, ...]:
        """Act on an observed stack's open agents. Return those that are new or were acted on."""
        open_agents = [agent for agent in agents if agent.openings]
        before, self._reported = self._reported, frozenset((agent.id, agent.openings) for agent in open_agents)
        done = [self._act_on(engine, observed, agent) for agent in open_agents]
        return tuple(
            open_agent
            for open_agent in done
            if open_agent.action is not OnOpen.WARN
            or (open_agent.agent.id, open_agent.agent.openings) not in before
        )

    def _act_on(self, engine: EngineWriter, observed: Observed, agent: Agent) -> OpenAgent:
        attached = bool(agent.address)  # else it uses the network of another one, and can't be taken off
        if (
            not any(opening.certain for opening in agent.openings)
            or self._on_open is OnOpen.WARN
            or (self._on_open is OnOpen.DETACH and not attached)
        ):
            return OpenAgent(agent, OnOpen.WARN)
        try:
            network = observed.networks[Role.AGENTS]
            view = engine.container(agent.id)
            if view is None or (attached and network.name not in view.connected):
                return OpenAgent(agent, OnOpen.WARN)  # it has left meanwhile
            if self._on_open is OnOpen.STOP:
                engine.stop(agent.id)
            else:
                engine.disconnect(network.id, agent.id)
        except EngineError as error:
            return OpenAgent(agent, self._on_open, error.in_one_line)
        finally:
            self._alive()
        return OpenAgent(agent, self._on_open)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A container to attach to the agent network. `error` says why that failed."""

    container: ContainerSummary
    error: str = ""


class Admission:
    """Attaches the containers on one network, and remembers failures."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._refused: frozenset[tuple[str, str]] = frozenset()

    def act(self, engine: EngineWriter, observed: Observed) -> tuple[Admitted, ...]:
        """Attach new containers. Return these, and failures, each once for the same reason."""
        agents = observed.networks.get(Role.AGENTS)
        if not self._network or agents is None:
            return ()
        waiting = [
            container
            for container in observed.listing
            if container.attached and self._network in container.networks and agents.name not in container.networks
        ]
        if not waiting:
            return ()
        problem = self._problem(engine)
        done = [
            Admitted(container, problem or _connected(engine, agents.id, container.id)) for container in waiting
        ]
        before = self._refused
        self._refused = frozenset((admitted.container.id, admitted.error) for admitted in done if admitted.error)
        return tuple(
            admitted
            for admitted in done
            if not admitted.error or (admitted.container.id, admitted.error) not in before
        )

    def _problem(self, engine: EngineWriter) -> str:
        """Return why the network is unsuitable, or nothing. A way out of it would be open to all agents."""
        try:
            network = next((network for network in engine.networks() if network.name == self._network), None)
        except EngineError as error:
            return error.in_one_line
        if network is None:
            return f"The network {self._network} has gone."
        return "" if network.internal else f"The network {self._network} has a way out: create it with --internal."


def _connected(engine: EngineWriter, network: str, container: str) -> str:
    try:
        engine.connect(network, container, "")
    except EngineError as error:
        return error.in_one_line
    return ""
