"""A watcher over an in-memory engine, with a clock that follows a script."""

import heapq
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count

from clawker_fw.model.engines import Event
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.watch.agents import Admitted, OpenAgent, Presence
from clawker_fw.watch.decision import Decision, Reaction
from clawker_fw.watch.follow import Inbox, News
from clawker_fw.watch.reactions import Heal, OnOpen
from clawker_fw.watch.watcher import Orders, Watcher, WatcherContext
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.waiting import until

ENVOY, COREDNS = "clawker-envoy", "clawker-coredns"
INTERVAL = 30.0


class CountingEngine(MemoryEngine):
    """An engine that counts the events it emits and those that the follower has handled."""

    def __init__(self) -> None:
        super().__init__()
        self.emitted = 0
        self.taken = 0
        self.go_away_soon = False
        """Whether a stream of events ends as soon as it is followed."""

    def _emit(self, event: Event) -> None:
        self.emitted += len(self._followers)
        super()._emit(event)

    @contextmanager
    def events(self) -> Iterator[Iterator[Event]]:
        """Count handled events: the follower asks for the next one when it has handled the last."""
        with super().events() as events:
            if self.go_away_soon:
                self.go_away()

            def counted() -> Iterator[Event]:
                for event in events:
                    yield event
                    self.taken += 1

            yield counted()

    def settle(self) -> None:
        """Wait until every event is handled, or, after the engine has gone away, until its follower has ended."""
        if self._followers:
            until(lambda: self.taken >= self.emitted, every=0.0005)
        else:
            until(lambda: all(each.name != "engine-events" for each in threading.enumerate()), every=0.0005)


class Script(Inbox):
    """A clock with scripted events; the watcher stops at the end."""

    def __init__(self, engine: CountingEngine, end: float) -> None:
        super().__init__()
        self.now = 0.0
        self.stopped = False
        self._engine = engine
        self._end = end
        self._numbers = count()
        self._actions: list[tuple[float, int, Callable[[], object]]] = []

    def at(self, moment: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._actions, (moment, next(self._numbers), action))

    def take(self, seconds: float) -> list[News | Event]:
        """Let time pass until an event, or for the requested time."""
        self._engine.settle()
        if found := super().take(0):
            return found
        target = min(self.now + seconds, self._end)
        if self._actions and self._actions[0][0] <= target:
            self.now, _, action = heapq.heappop(self._actions)
            action()
            self._engine.settle()
            return super().take(0)
        self.now = target
        self.stopped = self.now >= self._end
        return [News.STOP] if self.stopped else []


class Watched:
    """A running stack, and the watcher to run on it."""

    def __init__(self, engine: CountingEngine | None = None) -> None:
        self.engine = engine or CountingEngine()
        self.wanted = stacks.blueprint(self.engine.facts(), "a.test")
        stacks.converged(self.engine, self.wanted)
        self.decisions: list[tuple[float, Decision]] = []
        self.opened: list[tuple[float, OpenAgent]] = []
        self.present: list[tuple[float, Presence]] = []
        self.admitted: list[tuple[float, Admitted]] = []
        self.absences: list[float] = []
        """When the watcher said that it creates the stack."""
        self.signs: list[float] = []
        """When a service manager got a sign of life for an attempt that is not reported."""
        self.on_open = OnOpen.WARN
        self.attach = ""
        self.script = Script(self.engine, 0)
        self.connect: Callable[[], AbstractContextManager[CountingEngine]] = self._connected
        self.blueprint: Callable[[], Blueprint] = lambda: self.wanted

    def change(self, *rules: str) -> None:
        self.wanted = stacks.blueprint(self.engine.facts(), *rules)

    @contextmanager
    def _connected(self) -> Iterator[CountingEngine]:
        yield self.engine

    def place(self) -> WatcherContext:
        return WatcherContext(
            connect=lambda: self.connect(),  # noqa: PLW0108 - a test may have put another one there by then
            blueprint=lambda _: self.blueprint(),
            report=lambda decision: self.decisions.append((self.script.now, decision)),
            report_absent=lambda: self.absences.append(self.script.now),
            report_open=lambda found: self.opened.append((self.script.now, found)),
            report_presence=lambda seen: self.present.append((self.script.now, seen)),
            report_admitted=lambda found: self.admitted.append((self.script.now, found)),
            inbox=self.script,
            alive=lambda: self.signs.append(self.script.now),
            stopping=lambda: self.script.stopped,
            clock=lambda: self.script.now,
            wall=lambda: self.script.now,
            random=lambda: 0.5,
        )

    def until(
        self, end: float, *actions: tuple[float, Callable[[], object]], heal: Heal = Heal.TAMPER
    ) -> list[str]:
        """Run the watcher until the end of the script, and return its decisions with their times as text."""
        self.script = Script(self.engine, end)
        self.decisions, self.opened, self.present, self.admitted, self.signs = [], [], [], [], []
        self.absences = []
        for moment, action in actions:
            self.script.at(moment, action)
        Watcher(Orders("clawker", heal, INTERVAL, on_open=self.on_open, admits=self.attach), self.place()).watch()
        return [
            f"{moment:g} {each.trigger} {each.answer}{f' {each.outcome}' if each.outcome else ''}"
            for moment, each in self.decisions
        ]

    def heals(self) -> list[float]:
        return [moment for moment, decision in self.decisions if decision.answer is Reaction.HEAL]

    def is_current(self) -> bool:
        return stacks.found(self.engine, self.wanted) == set()
