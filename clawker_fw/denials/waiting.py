"""Refusals that wait for a question to a person, at most one for a host and few for an agent. Pure.

An agent can cause ten thousand refusals in a second. Each has a limited queue; refusals beyond it are dropped, and
return if the agent retries. Agents take turns, so that none can bury another's question.
"""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, replace

from clawker_fw.denials.question import host_of
from clawker_fw.denials.refusal import Counted

MOST_WAITING = 20
"""Waiting hosts of one agent."""
MOST_AGENTS = 1_000
"""The most agents that are distinguished, and the most hosts that are remembered as settled."""
_MOST_NAMED = 100
"""The most agents that one question counts."""


@dataclass(slots=True)
class Candidate:
    """A refused host: the refusal to ask about, and how often each agent was refused it."""

    host: str
    counted: Counted
    agents: Counter[str]

    @property
    def refusal(self) -> Counted:
        """The refusal, with the count of all agents."""
        return replace(self.counted, times=self.agents.total())

    def add(self, counted: Counted, agent: str) -> None:
        """Count another refusal of the host. A connection's refusal replaces a DNS query's, which says less."""
        if agent in self.agents or len(self.agents) < _MOST_NAMED:
            self.agents[agent] += counted.times
        if self.counted.refusal.protocol == "dns" != counted.refusal.protocol:
            self.counted = counted


class Waiting:
    """The waiting refusals by agent."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Candidate]] = OrderedDict()
        """By agent, in the order of their turns."""
        self._known: dict[str, Candidate] = {}
        """Waiting and open candidates by host."""
        self._open: Candidate | None = None
        self._settled: OrderedDict[str, None] = OrderedDict()

    def add(self, counted: Counted, agent: str) -> None:
        """Add a refusal. `agent` is the agent's name or address."""
        host = host_of(counted)
        if not host or host in self._settled:
            return
        if candidate := self._known.get(host):
            candidate.add(counted, agent)
        elif agent in self._queues or len(self._queues) < MOST_AGENTS:
            queue = self._queues.setdefault(agent, deque())
            if len(queue) < MOST_WAITING:
                candidate = Candidate(host, counted, Counter({agent: counted.times}))
                self._known[host] = candidate
                queue.append(candidate)

    def take(self) -> Candidate | None:
        """Open and return the next candidate, or None if nothing waits."""
        for agent, queue in self._queues.items():
            if queue:
                self._queues.move_to_end(agent)
                self._open = queue.popleft()
                return self._open
        return None

    def close(self, *, settled: bool = False) -> None:
        """Close the open candidate. If it is settled, nobody is asked about its host again."""
        if self._open:
            self._known.pop(self._open.host, None)
            if settled:
                self._settled[self._open.host] = None
                if len(self._settled) > MOST_AGENTS:
                    self._settled.popitem(last=False)
        self._open = None

    @property
    def more(self) -> int:
        """How many hosts wait besides the open one."""
        return sum(map(len, self._queues.values()))
