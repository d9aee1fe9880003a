"""The command that keeps a stack current until it is stopped."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Options, duration, unparsed
from clawker_fw.report import log
from clawker_fw.watch.reactions import Heal, OnOpen

if TYPE_CHECKING:
    from clawker_fw.cli.watched_settings import WatchedSettings
    from clawker_fw.stack.release import Release
    from clawker_fw.watch.decision import Decision
    from clawker_fw.watch.metrics import Metrics
    from clawker_fw.watch.page import Pages


_NETWORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 1.0, 86400.0


def _interval(text: str) -> float:
    seconds = duration(text)
    if not _SHORTEST_INTERVAL <= seconds <= _LONGEST_INTERVAL:
        raise typer.BadParameter("an interval is from 1s to 24h")
    return seconds


def _checked_address(text: str | None) -> str | None:
    if text is None:
        return None
    from clawker_fw.watch.address import parse_address

    try:
        return str(parse_address(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _checked_network(name: str | None) -> str | None:
    if name is not None and not _NETWORK.fullmatch(name):
        raise typer.BadParameter(f"{name!r} is not the name of a network")
    return name


@app.command()
def watch(
    context: typer.Context,
    *,
    heal: Annotated[
        Heal,
        typer.Option(
            "--heal",
            metavar="tamper|all|none",
            help="Which differences to close: changes made by hand (tamper), all, or none. "
            "With tamper, changed settings and upgrades wait for `run`.",
        ),
    ] = Heal.TAMPER,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            metavar="DURATION",
            parser=_interval,
            help="How often to compare the stack when no event arrives, plus or minus 10 %.",
        ),
    ] = unparsed("30s"),
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS",
            callback=_checked_address,
            help="Serve /metrics and /health at 127.0.0.1:PORT, [::1]:PORT or unix:PATH.",
        ),
    ] = None,
    on_open: Annotated[
        OnOpen,
        typer.Option(
            "--on-open",
            metavar="warn|detach|stop",
            help="What to do about an agent that has a way around the firewall: only report it (warn), also take "
            "it off the agent network (detach), or stop it.",
        ),
    ] = OnOpen.WARN,
    attach: Annotated[
        str | None,
        typer.Option(
            "--attach",
            metavar="NETWORK",
            callback=_checked_network,
            help="Attach the containers on this internal network to the agent network, such as tasks of a service "
            "in a swarm.",
        ),
    ] = None,
) -> None:
    """Keep the stack current until stopped.

    Compares the stack at every interval, and at once when the engine reports an event about it. Differences are
    closed as `run` would close them, and a stack that is down at the start is created. Each decision is logged as
    one record.

    Example: clawker-fw watch --heal all --listen 127.0.0.1:9464
    """
    from clawker_fw.cli.watched_settings import WatchedSettings
    from clawker_fw.stack.release import Release
    from clawker_fw.watch import record
    from clawker_fw.watch.follow import Inbox, News
    from clawker_fw.watch.installed import Installed
    from clawker_fw.watch.notify import Manager
    from clawker_fw.watch.watcher import Orders, Watcher, WatcherContext

    chosen: Options = context.obj
    manager, inbox = Manager(os.environ), Inbox()
    release = Release.installed()
    installed = Installed(release)
    with ExitStack() as stack:
        serving = stack.enter_context(_serving(chosen, listen, interval, release)) if listen else ()
        stop = session.stoppable(lambda: inbox.put(News.STOP), signal.SIGINT, signal.SIGTERM)
        stopping = stack.enter_context(stop)

        def report(decision: "Decision") -> None:
            for recipient in (record.write, *serving, manager.report):
                recipient(decision)

        settings = WatchedSettings(chosen, release)
        place = WatcherContext(
            connect=lambda: closing(session.connect_engine(chosen)),
            blueprint=settings.blueprint,
            report=report,
            report_absent=lambda: log.notice("stack_absent", f"{chosen.project} is not up: it is being created."),
            report_open=record.write_open,
            report_presence=record.write_presence,
            report_admitted=record.write_admitted,
            inbox=inbox,
            require_release=installed.require_same,
            alive=manager.alive,
            memory=settings,
            stopping=stopping,
            clock=time.monotonic,
        )
        stack.enter_context(_noticing(settings, lambda: inbox.put(News.EVENT)))
        Watcher(Orders(chosen.project, heal, interval, on_open, attach or ""), place).watch()
    manager.stopping()


@contextmanager
def _serving(
    chosen: Options, listen: str, interval: float, release: "Release"
) -> "Iterator[tuple[Callable[[Decision], None], ...]]":
    """Serve metrics and health at an address, and yield the functions that take decisions for them."""
    from clawker_fw.watch import page
    from clawker_fw.watch.address import HEALTH, HEALTH_OF_SIBLINGS, parse_address
    from clawker_fw.watch.metrics import CONTENT_TYPE, Metrics

    metrics = Metrics(release.version, release.build_sha)
    health = page.WatcherHealth(2 * interval + _LOOK_SECONDS, time.monotonic)
    pages: Pages = {
        "/metrics": lambda: page.Reply(metrics.page(), CONTENT_TYPE),
        HEALTH: health.answer,
        HEALTH_OF_SIBLINGS: lambda: health.answer(agents=False),
    }
    with page.served(parse_address(listen), pages) as address, _counting(chosen, metrics):
        log.notice("metrics_served", f"Metrics and health are served at {address}.")
        yield metrics.report, health.report


@contextmanager
def _counting(chosen: Options, metrics: "Metrics") -> "Iterator[None]":
    from clawker_fw.watch import record
    from clawker_fw.watch.refusals import RefusalCounter, keep_counting

    ended = threading.Event()
    counter = RefusalCounter(chosen.project, metrics.refused)
    work = (counter, lambda: closing(session.connect_engine(chosen)), record.write_uncounted, ended)
    threading.Thread(target=keep_counting, args=work, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _noticing(settings: "WatchedSettings", on_change: Callable[[], None]) -> Iterator[None]:
    """Call `on_change` when a file of the settings has been saved."""
    from clawker_fw.watch.saved import SavedFiles, keep_looking
    from clawker_fw.watch.trust import STEADY_SECONDS

    ended = threading.Event()
    saved = SavedFiles(settings.files, time.monotonic, STEADY_SECONDS)
    threading.Thread(target=keep_looking, args=(saved, on_change, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


_LOOK_SECONDS = 5.0
"""Time allowed for a comparison: until then the previous result still counts as fresh."""
