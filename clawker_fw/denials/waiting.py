"""Refusals that wait until a person is asked about them: one for a host, few for an agent, whatever agents do.

An agent can be refused ten thousand names in a second. It has a few places, and what finds none is left out; it
comes again if the agent does. Agents take turns, so that none has its question buried by another's. Pure.
"""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, replace

from clawker_fw.denials.question import host_of
from clawker_fw.denials.refusal import Counted

MOST_WAITING = 20
"""Hosts of one agent that wait."""
MOST_AGENTS = 1_000
"""Agents that are told apart, and hosts of which it is remembered that they are not asked about again."""
_MOST_NAMED = 100
"""Agents that one question knows to have been refused the same."""


@dataclass(slots=True)
class Candidate:
    """A host that agents were refused: the refusal to ask about, and how often it was refused to whom."""

    host: str
    counted: Counted
    agents: Counter[str]

    @property
    def refusal(self) -> Counted:
        """The refusal, with how often the host was refused to all agents."""
        return replace(self.counted, times=self.agents.total())

    def add(self, counted: Counted, agent: str) -> None:
        """Count another refusal of the host. It says more if it is not only a question to the resolver."""
        if agent in self.agents or len(self.agents) < _MOST_NAMED:
            self.agents[agent] += counted.times
        if self.counted.refusal.protocol == "dns" != counted.refusal.protocol:
            self.counted = counted


class Waiting:
    """The refusals that wait, by agent."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Candidate]] = OrderedDict()
        """By the agent, the one whose turn it is first."""
        self._known: dict[str, Candidate] = {}
        """What waits, and what is being asked, by the host."""
        self._open: Candidate | None = None
        self._settled: OrderedDict[str, None] = OrderedDict()

    def add(self, counted: Counted, agent: str) -> None:
        """Take in a refusal. `agent` is the agent's name, or its address."""
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
        """Return what to ask about next, or None if nothing waits. It is open until it is closed."""
        for agent, queue in self._queues.items():
            if queue:
                self._queues.move_to_end(agent)
                self._open = queue.popleft()
                return self._open
        return None

    def close(self, *, settled: bool = False) -> None:
        """Close what is open. If it is settled, nobody is asked about its host again."""
        if self._open:
            self._known.pop(self._open.host, None)
            if settled:
                self._settled[self._open.host] = None
                if len(self._settled) > MOST_AGENTS:
                    self._settled.popitem(last=False)
        self._open = None

    @property
    def more(self) -> int:
        """How many hosts wait, beside the open one."""
        return sum(map(len, self._queues.values()))
