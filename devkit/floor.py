"""Where tests run side by side, or one alone: a lock between the workers of a test run, and between test runs.

A test that measures times would measure its neighbours, too. So it waits until they have ended their test, and
they begin no other one until it has ended. The locks are the kernel's: they end with whoever holds them.
"""

import fcntl
from pathlib import Path
from types import TracebackType
from typing import IO, Self

PLACE = Path(__file__).resolve().parent.parent / ".dev"


class Lock:
    """A lock between processes: one file, which is held by all who share it or by one."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made when it is first taken."""
        self._path = path
        self._held: IO[bytes] | None = None

    def take(self, *, shared: bool = False) -> None:
        """Wait for the lock and hold it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._held = self._path.open("ab")
        fcntl.flock(self._held, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def give(self) -> None:
        """Let the next one have it."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        """Hold it alone."""
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one have it."""
        self.give()


class Floor:
    """One process's place on the floor. Whoever waits to be alone is let in before all who come after."""

    def __init__(self, place: Path = PLACE) -> None:
        """Be nowhere yet."""
        self._door, self._floor = Lock(place / "tests-door.lock"), Lock(place / "tests-floor.lock")
        self._alone: bool | None = None

    def enter(self, *, alone: bool) -> None:
        """Wait for a place, unless this process has one of that sort."""
        if self._alone == alone:
            return
        self.leave()
        with self._door:
            self._floor.take(shared=not alone)
        self._alone = alone

    def leave(self) -> None:
        """Give the place up."""
        self._floor.give()
        self._alone = None
