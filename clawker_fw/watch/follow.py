"""The thread that follows an engine's events, and the watcher's inbox."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

from clawker_fw.engine.port import EngineReader
from clawker_fw.model.engines import Event


class News(Enum):
    """The kinds of news in an inbox. Duplicates make no difference."""

    EVENT = auto()
    ARRIVAL = auto()
    LOCK_FREE = auto()
    GONE = auto()
    STOP = auto()


class Inbox:
    """A queue for one reader, filled by threads and signal handlers. Events are judged when they are taken."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[News | Event] = queue.SimpleQueue()

    def put(self, news: News | Event) -> None:
        """Add news or an event, and wake the reader."""
        self._queue.put(news)

    def take(self, seconds: float) -> list[News | Event]:
        """Return everything in order. If there is nothing, wait up to `seconds`."""
        taken: list[News | Event] = []
        with suppress(queue.Empty):
            taken.append(self._queue.get(timeout=max(0.0, seconds)))
            while True:
                taken.append(self._queue.get_nowait())
        return taken


@contextmanager
def followed(engine: EngineReader, inbox: Inbox) -> Iterator[None]:
    """Put each event of an engine into the inbox until the context ends, or `GONE` if the engine goes first."""
    left = threading.Event()
    with engine.events() as events:

        def follow() -> None:
            try:
                for event in events:
                    inbox.put(event)
            finally:
                if not left.is_set():
                    inbox.put(News.GONE)

        threading.Thread(target=follow, name="engine-events", daemon=True).start()
        try:
            yield
        finally:
            left.set()
