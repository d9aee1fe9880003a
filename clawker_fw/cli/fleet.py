"""The command about many hosts, `fleet status`."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import group
from clawker_fw.cli.parameters import Format, FormatOption, Options, duration, unparsed
from clawker_fw.cli.session import print_json, print_report
from clawker_fw.errors import EngineError, ExitCode, FirewallError, UsageError

if TYPE_CHECKING:
    from clawker_fw.engine.port import EngineReader
    from clawker_fw.fleet.hosts import Host, Hosts
    from clawker_fw.report.fleet import Row
    from clawker_fw.settings.loaded import Loaded
    from clawker_fw.stack.release import Release

fleet_app = group("fleet", "See whether many hosts are current.")

ContextsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="A docker context. Can be repeated. Without contexts and hosts: all contexts.",
    ),
]
HostsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="An engine's address, e.g. ssh://user@build-1. Can be repeated.",
    ),
]
DiffOption = Annotated[
    bool,
    typer.Option("--diff", help="Also show the fields by which hosts differ that are not current."),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="DURATION",
        parser=duration,
        help="The time for a host in all. One answer, a login over ssh included, may take a third. E.g. 30s.",
    ),
]


@fleet_app.command("status")
def status(
    context: typer.Context,
    *,
    contexts: ContextsOption = None,
    hosts: HostsOption = None,
    diff: DiffOption = False,
    timeout: TimeoutOption = unparsed("10s"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show all hosts side by side, and whether each is current.

    Each row also has the release, the rules and the agents. Each host is compared with the settings that are used
    here, as `drift` does. One that is slow, dead or silent has a row as well, and costs the others nothing. Exit 0
    when all are current, else 1; 4 if none could be reached.

    Example: clawker-fw fleet status --context build-1 --context build-2
    """
    chosen: Options = context.obj
    loaded = session.load(chosen)  # a mistake in the settings is reported before any host is asked
    from clawker_fw.report.documents.parts import SettingsNamed
    from clawker_fw.report.fleet import FleetStatusDocument, ReleaseUsed
    from clawker_fw.rules.review import review
    from clawker_fw.stack.release import Release

    session.warn_of_rules(review(loaded.rules, time.time()))
    fleet = _hosts(chosen, contexts or (), hosts or ())
    release = Release.installed()
    rows = _ask(fleet, timeout, _comparer(chosen, loaded, release))
    settings = SettingsNamed.named(loaded, loaded.named_by(chosen.given))
    used = ReleaseUsed(release.version, release.build_sha)
    document = FleetStatusDocument.of(rows, fleet.left_out, settings, used, findings=diff)
    if format_ is Format.JSON:
        print_json(document)
    else:
        from clawker_fw.report import fleet as report

        print_report(report.status_report(document))
    if not document.asked:
        raise typer.Exit(ExitCode.ENGINE)
    if document.current != document.total:
        raise typer.Exit(ExitCode.DRIFT)


# --- hosts ----------------------------------------------------------------------------------------------------


def _hosts(chosen: Options, contexts: Sequence[str], addresses: Sequence[str]) -> "Hosts":
    from clawker_fw.fleet import hosts

    before = [option for name in ("host", "context") if (option := chosen.given.get(name, "")).startswith("--")]
    if before:
        raise UsageError(
            "fleet-of-one",
            f"{before[0]} before the command chooses one engine, and this command is about several.",
            hint=f"Write {before[0]} after the command, once for each host.",
        )
    if contexts or addresses:
        return hosts.named(contexts, addresses, os.environ)
    return hosts.all_contexts(os.environ)


# --- asking ---------------------------------------------------------------------------------------------------


def _ask(fleet: "Hosts", seconds: float, compare: "Callable[[Host, EngineReader, float], Row]") -> "list[Row]":
    """Compare all hosts in parallel. A host may take `seconds`, and a third of that for one request."""
    from clawker_fw.fleet.hosts import ask_all
    from clawker_fw.report import fleet as report

    def ask(host: "Host") -> "Row":
        began = time.monotonic()
        if isinstance(host.place, EngineError):
            return report.failed(host, host.place, 0.0)
        try:
            with closing(session.connect_place(host.place, seconds / 3)) as engine:
                return compare(host, engine, began)
        except FirewallError as error:
            return report.failed(host, error, time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - it may answer anything
            return report.failed(host, report.nonsense(error), time.monotonic() - began)

    def late(host: "Host") -> "Row":
        return report.failed(host, report.late(seconds), seconds)

    return ask_all(fleet.hosts, ask, late, seconds)


def _comparer(
    chosen: Options, loaded: "Loaded", release: "Release"
) -> "Callable[[Host, EngineReader, float], Row]":
    from clawker_fw.reconcile import inputs, pipeline
    from clawker_fw.report import fleet as report

    preparing = threading.Lock()

    def compare(host: "Host", engine: "EngineReader", began: float) -> "Row":
        with preparing:  # each secret is obtained once
            blueprint = inputs.blueprint(chosen, loaded, release, engine.facts())
        comparison = pipeline.compare(engine, blueprint)
        return report.of_comparison(host, comparison, release, time.monotonic() - began)

    return compare
