"""Following the siblings' logs: each refusal when it happens, also after restarts and replacements."""

import queue
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from clawker_fw.background import in_background
from clawker_fw.denials.reading import FIRST_LINES, Sources, sources
from clawker_fw.denials.refusal import Counted, read_lines
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import NotFoundError, RefusedError
from clawker_fw.model import Sibling

_LOOK_EVERY = 0.5
"""Seconds after which a sibling is looked for again whose log has ended."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """The log of a container has ended: it has stopped, or was replaced."""

    container: str


class Following:
    """The refusals of a stack from now on. Each log is followed in a thread of its own."""

    def __init__(self, reader: EngineReader, project: str, found: Sources) -> None:
        """Begin to follow what was found."""
        self._reader = reader
        self._project = project
        self._arrived: queue.SimpleQueue[Counted | Exception | _Ended] = queue.SimpleQueue()
        self._followed: set[str] = set()
        self._last: dict[str, bytes | None] = dict.fromkeys(container for _, container in found.containers)
        """The last line of each container, so that none is told of twice. What was there before is not told of."""
        self._begin(found.containers)

    def __iter__(self) -> Iterator[Counted]:
        """Yield each refusal, until the stack is gone.

        Raises:
            EngineError: when a log can't be read any more.
        """
        while True:
            match self._arrived.get():
                case _Ended(container):
                    self._followed.discard(container)
                    try:
                        self._begin(sources(self._reader, self._project).containers)
                    except RefusedError:
                        return
                case Exception() as error:
                    raise error
                case Counted() as counted:
                    yield counted

    def _begin(self, containers: Iterable[tuple[Sibling, str]]) -> None:
        """Follow the containers that are not followed yet. Of a new one, everything is news."""
        for sibling, container in containers:
            if container not in self._followed:
                self._followed.add(container)
                last = self._last.setdefault(container, b"")
                lines = 0 if last is None else FIRST_LINES if last else None
                in_background(self._forward, sibling, container, lines)

    def _forward(self, sibling: Sibling, container: str, lines: int | None) -> None:
        try:
            with suppress(NotFoundError), self._reader.log(container, lines, follow=True) as log:
                for some in log:
                    before = self._last[container] or b""
                    fresh = [line for line in some if line > before]
                    for each in read_lines(sibling, fresh):
                        self._arrived.put(each)
                    self._last[container] = max([before, *fresh])
        except Exception as error:  # noqa: BLE001 - raised again by the one who iterates
            self._arrived.put(error)
        time.sleep(_LOOK_EVERY)
        self._arrived.put(_Ended(container))
