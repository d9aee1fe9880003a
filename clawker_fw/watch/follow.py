"""Following an engine in a thread of its own, and the inbox in which the watcher finds what was told."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

from clawker_fw.engine.port import EngineReader
from clawker_fw.model import Event


class News(Enum):
    """What can be in the inbox. How often something is in it makes no difference."""

    EVENT = auto()
    ARRIVAL = auto()
    LOCK_FREE = auto()
    GONE = auto()
    STOP = auto()


class Inbox:
    """News for one reader. Threads and signal handlers may put them in."""

    def __init__(self) -> None:
        """Begin empty."""
        self._queue: queue.SimpleQueue[News] = queue.SimpleQueue()

    def put(self, news: News) -> None:
        """Add news, and wake the reader."""
        self._queue.put(news)

    def take(self, seconds: float) -> set[News]:
        """Return everything that is in it; when it is empty, wait for as long as that."""
        found: set[News] = set()
        with suppress(queue.Empty):
            found.add(self._queue.get(timeout=max(0.0, seconds)))
            while True:
                found.add(self._queue.get_nowait())
        return found


@contextmanager
def followed(engine: EngineReader, tell: Callable[[Event], None], gone: Callable[[], None]) -> Iterator[None]:
    """Have every event of an engine told, until the context is left; say when the engine went away before that."""
    left = threading.Event()
    with engine.events() as events:

        def follow() -> None:
            try:
                for event in events:
                    tell(event)
            finally:
                if not left.is_set():
                    gone()

        threading.Thread(target=follow, name="engine-events", daemon=True).start()
        try:
            yield
        finally:
            left.set()
