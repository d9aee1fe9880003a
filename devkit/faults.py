"""An engine in which one call fails."""

import threading
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any, Generic, TypeVar

from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import EngineError

READS = frozenset(name for name in vars(EngineReader) if not name.startswith("_"))
WRITES = frozenset(name for name in vars(EngineWriter) if not name.startswith("_")) - READS


class Fault(StrEnum):
    """How a call fails."""

    KILL = "kill"
    """The process is killed before the call."""
    FAIL = "fail"
    """The engine refuses the call."""
    LOSE = "lose"
    """The call succeeds, but its answer is lost, as with a broken connection or a timeout."""


class Killed(BaseException):
    """Simulates SIGKILL within one process: no clean-up may run after it."""


Engine = TypeVar("Engine")


class Faulty(Generic[Engine]):
    """Wraps an engine. Certain calls are counted, and one of them fails."""

    def __init__(self, engine: Engine, counted: Collection[str] = WRITES) -> None:
        self.engine = engine
        self.calls = 0
        self.hit = ""
        self._counted = frozenset(counted)
        self._fault: Fault | None = None
        self._point = 0
        self._dead = False
        self._lock = threading.Lock()

    def arm(self, fault: Fault, point: int) -> None:
        self.calls, self.hit = 0, ""
        self._fault, self._point = fault, point

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the engine has
        value = getattr(self.engine, name)
        return self._watched(name, value) if name in READS | WRITES else value

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: object, **named: object) -> object:
            if self._dead:
                raise Killed
            fault = self._due(name)
            match fault:
                case Fault.KILL:
                    self._dead = True
                    raise Killed
                case Fault.FAIL:
                    raise EngineError("engine-error", f"The engine could not {name}, as was asked for.")
                case Fault.LOSE:
                    call(*arguments, **named)
                    raise EngineError("engine-unreachable", f"The engine did not answer to {name}.")
            return call(*arguments, **named)

        return made

    def _due(self, name: str) -> Fault | None:
        with self._lock:
            if name in self._counted and self._fault:
                self.calls += 1
                if self.calls == self._point:
                    self.hit = name
                    return self._fault
        return None
