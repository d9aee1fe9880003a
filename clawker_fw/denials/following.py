"""Follows the logs of Envoy and CoreDNS, also through restarts and replacements, and yields new refusals."""

import queue
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from clawker_fw import interrupts
from clawker_fw.background import in_background
from clawker_fw.denials.reading import Sources, sources
from clawker_fw.denials.refusal import Counted, Gap, records_in, refusals_in
from clawker_fw.denials.tally import Numbering
from clawker_fw.engine.newest import newest_lines
from clawker_fw.engine.outputs import stamp
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import NotFoundError, RefusedError
from clawker_fw.model.stacks import Sibling

_LOOK_EVERY = 0.5
"""Seconds before looking again for a container whose log has ended."""


class Following:
    """New refusals of a stack. Each log is followed in its own thread."""

    def __init__(self, reader: EngineReader, project: str, log_sources: Sources) -> None:
        self._reader = reader
        self._project = project
        self._arrived: queue.SimpleQueue[Counted | Gap | Exception | str] = queue.SimpleQueue()
        self._followed: set[str] = set()
        self._last: dict[str, bytes | None] = dict.fromkeys(container for _, container in log_sources.containers)
        """The last line of each container, to yield no line twice. None: skip older lines."""
        self._numbering: dict[str, Numbering] = {}
        self._from: dict[str, bytes] = {}
        """When following began, for each log whose older lines are skipped."""
        self._begin(log_sources.containers)

    def __iter__(self) -> Iterator[Counted | Gap]:
        """Yield refusals and gaps until the stack is gone. Raise EngineError if a log can't be read."""
        while True:
            try:
                arrived = self._arrived.get(timeout=interrupts.LONGEST_WAIT)
            except queue.Empty:
                continue
            match arrived:
                case str() as container:  # its log has ended: it has stopped, or was replaced
                    self._followed.discard(container)
                    try:
                        self._begin(sources(self._reader, self._project).containers)
                    except RefusedError:
                        return
                case Exception() as error:
                    raise error
                case Counted() | Gap() as item:
                    yield item

    def _begin(self, containers: Iterable[tuple[Sibling, str]]) -> None:
        for sibling, container in containers:
            if container not in self._followed:
                self._followed.add(container)
                self._numbering.setdefault(container, Numbering(sibling))
                self._last.setdefault(container, b"")
                in_background(self._forward, sibling, container)

    def _forward(self, sibling: Sibling, container: str) -> None:
        try:
            with suppress(NotFoundError):
                lines = self._begin_at(sibling, container)
                with self._reader.log(container, lines, follow=True) as log:
                    for some in log:
                        self._report(sibling, container, some)
        except Exception as error:  # noqa: BLE001 - raised again by the iterator
            self._arrived.put(error)
        time.sleep(_LOOK_EVERY)
        self._arrived.put(container)

    def _begin_at(self, sibling: Sibling, container: str) -> int | None:
        """Return from how many of the newest lines to follow; None means the whole log.

        A log may have ended in a truncated line. Following continues after it.
        """
        last = self._last[container]
        if last is None and container not in self._from:
            now = self._from[container] = stamp(self._reader.clock())
            self._numbering[container].add(records_in(newest_lines(self._reader, container, now)))
            return 0
        last = last or self._from.get(container, b"")
        if not last:
            return None
        newest = newest_lines(self._reader, container, last)
        self._report(sibling, container, newest)
        return len(newest)

    def _report(self, sibling: Sibling, container: str, lines: list[bytes]) -> None:
        before = self._last[container] or b""
        fresh = [line for line in lines if line > before]
        records = list(records_in(fresh))
        for gap in self._numbering[container].add(records):
            self._arrived.put(gap)
        for refusal in refusals_in(sibling, records):
            self._arrived.put(refusal)
        self._last[container] = max([before, *fresh])
