"""A lock with which tests run concurrently or one of them alone, across workers and test runs.

A test that measures times must not run next to others. It waits until running tests have ended, and no other test
starts until it has ended. The locks are the kernel's, so they end with their holder's process.
"""

import fcntl
from pathlib import Path
from types import TracebackType
from typing import IO, Self

PLACE = Path(__file__).resolve().parent.parent / ".dev"


class Lock:
    """A lock between processes on a file, held by several that share it or by one alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: IO[bytes] | None = None

    def take(self, *, shared: bool = False) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._held = self._path.open("ab")
        fcntl.flock(self._held, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def give(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give()


class Floor:
    """The place of one process. A process that waits to be alone comes before all later ones."""

    def __init__(self) -> None:
        self._door, self._floor = Lock(PLACE / "tests-door.lock"), Lock(PLACE / "tests-floor.lock")
        self._alone: bool | None = None

    def enter(self, *, alone: bool) -> None:
        """Wait for a place, shared or alone, unless this process has one of that kind."""
        if self._alone == alone:
            return
        self.leave()
        with self._door:
            self._floor.take(shared=not alone)
        self._alone = alone

    def leave(self) -> None:
        self._floor.give()
        self._alone = None
