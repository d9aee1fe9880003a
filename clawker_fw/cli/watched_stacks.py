"""The watchers of a settings file: one for the top-level stack, and one for the stack of each group.

Each runs in its own thread. They share the metrics, the health page and the service manager.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from clawker_fw.background import in_background
from clawker_fw.cli import session
from clawker_fw.cli.parameters import Options
from clawker_fw.cli.stacks import speaking_of, stacks_of
from clawker_fw.cli.watched_settings import WatchedSettings
from clawker_fw.engine.port import EngineWriter
from clawker_fw.report import log
from clawker_fw.stack.release import Release
from clawker_fw.watch import record
from clawker_fw.watch.decision import Decision
from clawker_fw.watch.follow import Inbox, News
from clawker_fw.watch.installed import Installed
from clawker_fw.watch.metrics import Metrics
from clawker_fw.watch.notify import Manager
from clawker_fw.watch.page import WatcherHealth
from clawker_fw.watch.refusals import RefusalCounter, keep_counting
from clawker_fw.watch.saved import SavedFiles, keep_looking
from clawker_fw.watch.trusted_settings import STEADY_SECONDS
from clawker_fw.watch.watcher import Orders, Watcher, WatcherContext


@dataclass(frozen=True)
class Reports:
    """Where decisions are reported, besides the log: to the service manager, and on pages if they are served."""

    manager: Manager
    pages: tuple[Metrics, WatcherHealth] | None

    def watched(self, one: Options) -> None:
        """Add a stack."""
        self.manager.watched(one.project)
        for page in self.pages or ():
            page.watched(one.group or "")

    def forget(self, one: Options) -> None:
        """Remove a stack that is no longer watched."""
        self.manager.forget(one.project)
        for page in self.pages or ():
            page.forget(one.group or "")

    def report(self, one: Options, decision: Decision) -> None:
        """Report a decision about a stack."""
        for page in self.pages or ():
            page.report(one.group or "", decision)
        self.manager.report(one.project, decision)


@dataclass(eq=False)
class _Watched:
    """A stack's watcher in its thread, and how to stop it."""

    options: Options
    settings: WatchedSettings
    inbox: Inbox = field(default_factory=Inbox)
    stopping: threading.Event = field(default_factory=threading.Event)
    ended: Future[None] = field(default_factory=Future)

    def stop(self) -> None:
        """Let the watcher end after its current step."""
        self.stopping.set()
        self.inbox.put(News.STOP)


class WatchedStacks:
    """The stacks of a settings file and their watchers. On exit, all stop after their current step."""

    def __init__(
        self, chosen: Options, orders: Orders, reports: Reports, release: Release, on_change: Callable[[], None]
    ) -> None:
        """Prepare to watch. `on_change` is called when the groups may have changed, or a watcher has ended."""
        self._chosen = chosen
        self._orders = orders
        self._reports = reports
        self._release = release
        self._on_change = on_change
        self._installed = Installed(release)
        self._watched: dict[str | None, _Watched] = {}
        self._ending: list[_Watched] = []

    def __enter__(self) -> None:
        """Start the watcher of the chosen stack."""
        self._start(self._chosen)

    def __exit__(self, *_: object) -> None:
        """Stop all watchers and wait for them."""
        for watched in self._watched.values():
            watched.stop()
        wait([watched.ended for watched in (*self._watched.values(), *self._ending)])

    def follow_groups(self) -> None:
        """Start a watcher for each new group in the settings, and stop the watchers of removed groups.

        Raises:
            RefusedError: if another release has been installed.
        """
        for watched in self._watched.values():
            if watched.ended.done():
                watched.ended.result()
        above = self._watched[self._chosen.group]
        for group in {*self._watched} - {self._chosen.group, *above.settings.groups}:
            self._stop(self._watched.pop(group))
        for group in above.settings.groups:
            if group not in self._watched:
                self._start(replace(self._chosen, group=group))

    def _start(self, one: Options) -> None:
        watched = _Watched(one, WatchedSettings(one, self._release))
        self._watched[one.group] = watched
        self._reports.watched(one)
        watched.ended = in_background(self._watch, watched)
        watched.ended.add_done_callback(lambda _: self._on_change())

    def _stop(self, watched: _Watched) -> None:
        watched.stop()
        self._ending.append(watched)
        self._reports.forget(watched.options)
        words = f"{watched.options.project} is no longer watched: the settings have no such group."
        log.notice("stack_unwatched", words)

    def _watch(self, watched: _Watched) -> None:
        one = watched.options
        with ExitStack() as stack:
            if len(stacks_of(self._chosen)) > 1:
                stack.enter_context(speaking_of(one))
            stack.enter_context(self._counting(one))
            stack.enter_context(_noticing(watched))
            orders = self._orders if one is self._chosen else replace(self._orders, project=one.project, admits="")
            Watcher(orders, self._context(watched)).watch()

    def _context(self, watched: _Watched) -> WatcherContext:
        one, settings = watched.options, watched.settings

        def report(decision: Decision) -> None:
            record.write(decision)
            if watched not in self._ending:
                self._reports.report(one, decision)
            self._on_change()

        return WatcherContext(
            connect=partial(_connected, one),
            blueprint=settings.blueprint,
            report=report,
            report_absent=lambda: log.notice("stack_absent", f"{one.project} is not up: it is being created."),
            report_open=record.write_open,
            report_presence=record.write_presence,
            report_admitted=record.write_admitted,
            inbox=watched.inbox,
            require_release=self._installed.require_same,
            alive=partial(self._reports.manager.alive, one.project),
            memory=settings,
            stopping=watched.stopping.is_set,
            clock=time.monotonic,
        )

    @contextmanager
    def _counting(self, one: Options) -> Iterator[None]:
        """Count refusals while metrics are served."""
        if self._reports.pages is None:
            yield
            return
        metrics, _ = self._reports.pages
        ended = threading.Event()
        counter = RefusalCounter(one.project, partial(metrics.refused, one.group or ""))
        in_background(keep_counting, counter, partial(_connected, one), record.write_uncounted, ended)
        try:
            yield
        finally:
            ended.set()


def _connected(one: Options) -> AbstractContextManager[EngineWriter]:
    return closing(session.connect_engine(one))


@contextmanager
def _noticing(watched: _Watched) -> Iterator[None]:
    """Compare when a file of the settings has been saved."""
    ended = threading.Event()
    saved = SavedFiles(watched.settings.files, time.monotonic, STEADY_SECONDS)
    in_background(keep_looking, saved, lambda: watched.inbox.put(News.EVENT), ended)
    try:
        yield
    finally:
        ended.set()
