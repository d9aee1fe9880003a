"""Act on agents that have a way around the firewall: report each once, and take it off the network if ordered.

Nobody may be able to use this against others. So only an agent that is open by the record of its own container is
acted on, never one that is open because of files that another agent may have made. It is named by its id, and
looked at once more directly before.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from clawker_fw.agents.judge import Agent, Opening
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError
from clawker_fw.model import Observed, Role
from clawker_fw.watch.reactions import OnOpen


@dataclass(frozen=True, slots=True)
class OpenAgent:
    """An open agent, and what was done about it. `error` says why that failed."""

    agent: Agent
    action: OnOpen
    error: str = ""


class Guard:
    """Remembers which open agents have been reported."""

    def __init__(self, on_open: OnOpen, alive: Callable[[], None] = lambda: None) -> None:
        """Store the order. `alive` is called after each agent: one may take ten seconds to stop."""
        self._on_open = on_open
        self._alive = alive
        self._reported: frozenset[tuple[str, tuple[Opening, ...]]] = frozenset()

    def act(self, engine: EngineWriter, observed: Observed, agents: Iterable[Agent]) -> tuple[OpenAgent, ...]:
        """Act on the open agents of an observed stack. Return those that are new or were acted on."""
        found = [each for each in agents if each.openings]
        before, self._reported = self._reported, frozenset((each.id, each.openings) for each in found)
        done = [self._act_on(engine, observed, agent) for agent in found]
        return tuple(
            each
            for each in done
            if each.action is not OnOpen.WARN or (each.agent.id, each.agent.openings) not in before
        )

    def _act_on(self, engine: EngineWriter, observed: Observed, agent: Agent) -> OpenAgent:
        attached = bool(agent.address)  # else it uses the network of another one, and can't be taken off
        if (
            not agent.certainly_open
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
