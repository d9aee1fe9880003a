"""The thread that follows an engine's events, and the inbox from which the watcher takes news."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

from clawker_fw.engine.port import EngineReader
from clawker_fw.model import Event


class News(Enum):
    """The kinds of news in an inbox. Duplicates make no difference."""

    EVENT = auto()
    ARRIVAL = auto()
    LOCK_FREE = auto()
    GONE = auto()
    STOP = auto()


class Inbox:
    """A queue of news for one reader. Threads and signal handlers may put news into it."""

    def __init__(self) -> None:
        """Create an empty inbox."""
        self._queue: queue.SimpleQueue[News] = queue.SimpleQueue()

    def put(self, news: News) -> None:
        """Add news, and wake the reader."""
        self._queue.put(news)

    def take(self, seconds: float) -> set[News]:
        """Return all news. If there is none, wait up to `seconds` for some."""
        found: set[News] = set()
        with suppress(queue.Empty):
            found.add(self._queue.get(timeout=max(0.0, seconds)))
            while True:
                found.add(self._queue.get_nowait())
        return found


@contextmanager
def followed(
    engine: EngineReader, on_event: Callable[[Event], None], on_end: Callable[[], None]
) -> Iterator[None]:
    """Call `on_event` for each event of an engine until the context ends, or `on_end` if the engine goes first."""
    left = threading.Event()
    with engine.events() as events:

        def follow() -> None:
            try:
                for event in events:
                    on_event(event)
            finally:
                if not left.is_set():
                    on_end()

        threading.Thread(target=follow, name="engine-events", daemon=True).start()
        try:
            yield
        finally:
            left.set()
