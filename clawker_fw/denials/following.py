"""Following the siblings' logs: each refusal when it happens, also after restarts and replacements."""

import queue
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from clawker_fw.background import in_background
from clawker_fw.denials.reading import FIRST_LINES, Sources, sources
from clawker_fw.denials.refusal import Counted, read_lines
from clawker_fw.denials.tally import Gap, Numbering
from clawker_fw.engine.log_stream import STAMP, stamp
from clawker_fw.engine.port import EngineReader
from clawker_fw.engine.runs import complete, last_run
from clawker_fw.errors import NotFoundError, RefusedError
from clawker_fw.model import Sibling

_LOOK_EVERY = 0.5
"""Seconds after which a sibling is looked for again whose log has ended."""

_FEW = 100
_CHECK_EVERY = 1.0
"""Seconds between two looks whether lines are missing, while more than a few come at once."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """The log of a container has ended: it has stopped, or was replaced."""

    container: str


@dataclass(frozen=True, slots=True)
class Missed:
    """Lines of a sibling's log are missing."""

    sibling: Sibling
    gap: Gap


class Unbroken:
    """Checks that no line is missing in what an engine sends of a log that it follows: some go on after a gap."""

    def __init__(self, reader: EngineReader, container: str, lines: int | None) -> None:
        """Begin with so many lines that were there before, which are not checked."""
        self._reader = reader
        self._container = container
        before = last_run(reader, container, 1) if lines == 0 else []
        self._skipped = lines or 0
        self._known = before[0] if before else b""
        """The line up to which nothing is missing, and how many have come since."""
        self._since = 0
        self._checked = 0.0

    def add(self, lines: list[bytes]) -> Gap | None:
        """Take in some lines as they come. Return between which times some are missing, if any are."""
        lines, self._skipped = lines[self._skipped :], max(0, self._skipped - len(lines))
        if not lines:
            return None
        if not self._known:
            self._known, lines = lines[0], lines[1:]
        self._since += len(lines)
        last = lines[-1] if lines else self._known
        if len(lines) > _FEW and time.monotonic() < self._checked + _CHECK_EVERY:
            return None
        whole = complete(self._reader, self._container, self._known, last, self._since + 1)
        gap = None if whole else Gap(self._known[:STAMP].decode(), last[:STAMP].decode())
        self._known, self._since, self._checked = last, 0, time.monotonic()
        return gap


class Following:
    """The refusals of a stack from now on. Each log is followed in a thread of its own."""

    def __init__(self, reader: EngineReader, project: str, found: Sources) -> None:
        self._reader = reader
        self._project = project
        self._arrived: queue.SimpleQueue[Counted | Missed | Exception | _Ended] = queue.SimpleQueue()
        self._followed: set[str] = set()
        self._last: dict[str, bytes | None] = dict.fromkeys(container for _, container in found.containers)
        """The last line of each container, so that none is told of twice. What was there before is not told of."""
        self._numbering: dict[str, Numbering] = {}
        self._from: dict[str, bytes] = {}
        """When each log was followed from of which nothing is told that was there before."""
        self._begin(found.containers)

    def __iter__(self) -> Iterator[Counted | Missed]:
        """Yield each refusal, and where some are missing, until the stack is gone.

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
                case Counted() | Missed() as told:
                    yield told

    def _begin(self, containers: Iterable[tuple[Sibling, str]]) -> None:
        """Follow the containers that are not followed yet. Of a new one, everything is news."""
        for sibling, container in containers:
            if container not in self._followed:
                self._followed.add(container)
                self._last.setdefault(container, b"")
                in_background(self._forward, sibling, container)

    def _forward(self, sibling: Sibling, container: str) -> None:
        try:
            with suppress(NotFoundError):
                lines = self._begin_at(sibling, container)
                unbroken = Unbroken(self._reader, container, lines)
                with self._reader.log(container, lines, follow=True) as log:
                    for some in log:
                        missed = self._tell(sibling, container, some)
                        if (gap := unbroken.add(some)) and not missed:
                            self._arrived.put(Missed(sibling, gap))
        except Exception as error:  # noqa: BLE001 - raised again by the one who iterates
            self._arrived.put(error)
        time.sleep(_LOOK_EVERY)
        self._arrived.put(_Ended(container))

    def _begin_at(self, sibling: Sibling, container: str) -> int | None:
        """Return with how many lines of a log to begin; without a number, with all.

        A log that has ended may have ended at a line that was cut off. It goes on after that, and the gap is told.
        """
        last = self._last[container]
        if last is None and container not in self._from:
            self._from[container] = stamp(self._reader.clock())
            return 0
        last = last or self._from.get(container, b"")
        if not last:
            return None
        run = last_run(self._reader, container, FIRST_LINES)
        if run and run[0] > last and len(run) < FIRST_LINES:
            gap = Gap(last[:STAMP].decode(), run[0][:STAMP].decode())
            self._arrived.put(Missed(sibling, gap))
        self._tell(sibling, container, run)
        return len(run)

    def _tell(self, sibling: Sibling, container: str, lines: list[bytes]) -> bool:
        """Tell of the lines that are new, and whether some are missing, which it returns."""
        before = self._last[container] or b""
        fresh = [line for line in lines if line > before]
        gaps = self._numbering.setdefault(container, Numbering()).add(fresh)
        for gap in gaps:
            self._arrived.put(Missed(sibling, gap))
        for each in read_lines(sibling, fresh):
            self._arrived.put(each)
        self._last[container] = max([before, *fresh])
        return bool(gaps)
