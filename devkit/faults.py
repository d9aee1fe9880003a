"""An engine in which one call fails, and the program run with such an engine.

`python -m devkit.faults FAULT POINT ARGUMENTS…` runs the command line and lets the POINT-th writing call fail. It
prints a line to standard error before that call.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any, Generic, TypeVar, cast

from clawker_fw import __main__ as program
from clawker_fw.cli import session
from clawker_fw.cli.parameters import Options
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import EngineError

READS = frozenset(name for name in vars(EngineReader) if not name.startswith("_"))
WRITES = frozenset(name for name in vars(EngineWriter) if not name.startswith("_")) - READS

HIT = "fault: "
"""The beginning of the line that names the failing call."""


class Fault(StrEnum):
    """How a call fails."""

    KILL = "kill"
    """The process is killed before the call."""
    KILL_AFTER = "kill-after"
    """The process is killed after the call."""
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
        """Start without a fault."""
        self.engine = engine
        self.calls = 0
        self.hit = ""
        self._counted = frozenset(counted)
        self._fault: Fault | None = None
        self._point = 0
        self._dead = False
        self._kill: Callable[[], None] = self._die
        self._lock = threading.Lock()

    def arm(self, fault: Fault, point: int, kill: Callable[[], None] | None = None) -> None:
        """Let the `point`-th call from now on fail. `kill` ends the process."""
        self.calls, self.hit = 0, ""
        self._fault, self._point, self._kill = fault, point, kill or self._die

    def _die(self) -> None:
        self._dead = True
        raise Killed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the engine has
        """Return a call of the engine, which may fail."""
        value = getattr(self.engine, name)
        return self._watched(name, value) if name in READS | WRITES else value

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: object, **named: object) -> object:
            if self._dead:
                raise Killed
            fault = self._due(name)
            match fault:
                case Fault.KILL:
                    self._kill()
                case Fault.FAIL:
                    raise EngineError("engine-error", f"The engine could not {name}, as was asked for.")
                case Fault.KILL_AFTER:
                    call(*arguments, **named)
                    self._kill()
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


def _kill_for_good() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Told(Faulty[EngineWriter]):
    """Prints the name of the failing call before it fails."""

    def _due(self, name: str) -> Fault | None:
        fault = super()._due(name)
        if fault:
            print(f"{HIT}{fault} at {name}", file=sys.stderr, flush=True)
        return fault


def main(arguments: list[str]) -> None:
    """Run the command line with a fault."""
    fault, point, *rest = arguments
    connect = session.connect_engine

    def faulty(options: Options) -> EngineWriter:
        engine = _Told(connect(options))
        engine.arm(Fault(fault), int(point), _kill_for_good)
        return cast("EngineWriter", engine)

    vars(session)[connect.__name__] = faulty
    sys.argv[1:] = rest
    program.main()


if __name__ == "__main__":
    main(sys.argv[1:])
