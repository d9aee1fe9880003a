"""The command that keeps a stack current until it is stopped."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw import interrupts
from clawker_fw.cli import session
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Options, duration, unparsed
from clawker_fw.report import log
from clawker_fw.watch.reactions import Heal, OnOpen

if TYPE_CHECKING:
    from clawker_fw.stack.release import Release
    from clawker_fw.watch.metrics import Metrics
    from clawker_fw.watch.page import Pages, WatcherHealth


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
    """Keep the stack, and that of each group, current until stopped.

    Compares the stack at every interval, and at once when the engine reports an event about it. Differences are
    closed as `run` would close them, and a stack that is down at the start is created. Each decision is logged as
    one record.

    Example: clawker-fw watch --heal all --listen 127.0.0.1:9464
    """
    from clawker_fw.cli.watched_stacks import Reports, WatchedStacks
    from clawker_fw.stack.release import Release
    from clawker_fw.watch.notify import Manager
    from clawker_fw.watch.watcher import Orders

    chosen: Options = context.obj
    manager, release, changed = Manager(os.environ), Release.installed(), threading.Event()
    orders = Orders(chosen.project, heal, interval, on_open, attach or "")
    with ExitStack() as stack:
        pages = stack.enter_context(_serving(listen, interval, release)) if listen else None
        stopping = stack.enter_context(session.stoppable(changed.set, signal.SIGINT, signal.SIGTERM))
        watched = WatchedStacks(chosen, orders, Reports(manager, pages), release, changed.set)
        with watched:
            changed.set()
            while not stopping():
                if changed.wait(interrupts.LONGEST_WAIT):
                    changed.clear()
                    watched.follow_groups()
    manager.stopping()


@contextmanager
def _serving(listen: str, interval: float, release: "Release") -> "Iterator[tuple[Metrics, WatcherHealth]]":
    """Serve metrics and health at an address, and yield both."""
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
    with page.served(parse_address(listen), pages) as address:
        log.notice("metrics_served", f"Metrics and health are served at {address}.")
        yield metrics, health


_LOOK_SECONDS = 5.0
"""Time allowed for a comparison: until then the previous result still counts as fresh."""
