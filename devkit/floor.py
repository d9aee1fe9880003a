"""A lock that keeps other tests from running beside one that measures times, across workers and test runs."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PLACE = Path(__file__).resolve().parent.parent / ".dev"


@contextmanager
def lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock between processes on a file, with others that share it or alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


class Floor:
    """The place of one process. A process that waits to be alone comes before all later ones."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._alone: bool | None = None

    def enter(self, *, alone: bool) -> None:
        """Wait for a place, shared or alone, unless this process has one of that kind."""
        if self._alone == alone:
            return
        self.leave()
        with lock(PLACE / "tests-door.lock"):
            self._held.enter_context(lock(PLACE / "tests-floor.lock", shared=not alone))
        self._alone = alone

    def leave(self) -> None:
        self._held.close()
        self._alone = None
