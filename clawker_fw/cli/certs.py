"""The commands about certificates: `certs show`, `rotate` and `export`."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import Commands, Panel, app
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json, reading
from clawker_fw.errors import ExitCode, RefusedError, SettingsError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.certificates.store import CertificateStore
    from clawker_fw.report.certs import CertificatesAnswer
    from clawker_fw.settings.loaded import Loaded

certs_app = typer.Typer(
    cls=Commands,
    name="certs",
    help="Show, renew and export the siblings' certificates for telemetry.",
    rich_markup_mode=None,
)
app.add_typer(certs_app, rich_help_panel=Panel.TELEMETRY)


class Exported(StrEnum):
    """For whom certificates are exported."""

    COLLECTOR = "collector"


@certs_app.command("show")
def show(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Show each certificate: for whom, until when, and where it is live.

    Also what is to be renewed, and why telemetry is not ready. It is ready when both siblings have loaded theirs
    and send to `otel.endpoint`. Exit 0 when telemetry is ready or not set up, else 1.

    Example: clawker-fw certs show
    """
    chosen: Options = context.obj
    with reading(chosen) as (_, seen):
        from clawker_fw.diagnose.diagnosis import telemetry_obstacle
        from clawker_fw.report import certs as report

        loaded = session.load(chosen)
        kept = session.store(chosen, loaded, keeps=False).kept()
        provision = seen.provision
        usable = provision.credentials is not None
        unsent = telemetry_obstacle(seen.observed, seen.desired, provision.live) if usable else ""
        reasons = (f"{unsent}; `clawker-fw run` changes that" if unsent else "", provision.reason)
        answer = report.CertificatesAnswer(
            chosen.project,
            loaded.settings.otel.endpoint,
            report.rows(kept, seen.observed),
            usable and not unsent,
            "; ".join(filter(None, reasons)),
            provision.due,
        )
    _answer(answer, format_, report.verdict(answer))
    if answer.endpoint and not answer.ready:
        raise typer.Exit(ExitCode.DRIFT)


@certs_app.command("rotate")
def rotate(
    context: typer.Context,
    *,
    authority: Annotated[
        bool,
        typer.Option(
            "--authority", help="Also found a new authority. The former one stays trusted until the next rotation."
        ),
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Renew the siblings' certificates now. `run`, or a watcher, then puts them into use without a replacement.

    Example: clawker-fw certs rotate && clawker-fw run
    """
    chosen: Options = context.obj
    with _store(chosen) as (store, loaded):
        if store.own is not None:
            raise RefusedError(
                "certs-not-ours",
                f"The certificates in {store.own} are your own, so they are not renewed here.",
                hint="Replace them there, or leave `otel.certs_dir` out.",
            )
        store.rotate(authority=authority)
    then = "Then run `clawker-fw run`."
    if loaded.settings.otel.endpoint is None:
        then = "Nothing uses them until `otel.endpoint` is set."
    elif authority:
        then = f"Give the collector its new certificate first: `clawker-fw certs export collector DIR`. {then}"
    _kept(chosen, store, loaded, format_, f"The certificates have been renewed. {then}")


@certs_app.command("export")
def export(
    context: typer.Context,
    what: Annotated[Exported, typer.Argument(metavar="collector", hidden=True)],
    folder: Annotated[Path, typer.Argument(metavar="DIR", hidden=True)],
    *,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Write the files that the collector needs into a folder.

    These are `ca.crt`, `collector.crt` and `collector.key`. Its certificate is for the host of `otel.endpoint`, or
    for `otel.server_name`. It is valid for a year; from two thirds of that on, another one is written. The
    collector must require a client certificate of `ca.crt`.

    Example: clawker-fw certs export collector /etc/otelcol/tls
    """
    chosen: Options = context.obj
    with _store(chosen) as (store, loaded):
        otel = loaded.settings.otel
        if otel.endpoint is None:
            raise SettingsError(
                "endpoint-missing",
                "`otel.endpoint` is not set, so the collector's name is unknown.",
                hint="Set it to HOST:PORT.",
            )
        store.export(otel.server_name or otel.endpoint.rpartition(":")[0], folder)
    _kept(chosen, store, loaded, format_, f"Wrote ca.crt, {what}.crt and {what}.key into {folder}.")


@contextmanager
def _store(chosen: Options) -> "Iterator[tuple[CertificateStore, Loaded]]":
    """Yield the certificates that are kept here, and the settings. What can't be read or written is an error."""
    loaded = session.load(chosen)
    session.warn_of_project(chosen, loaded)
    try:
        yield session.store(chosen, loaded, keeps=True), loaded
    except (OSError, ValueError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        raise RefusedError(
            "certs-unusable",
            f"The certificates can't be used: {text}.",
            hint="`clawker-fw run` makes what is missing, unless the stack has certificates from elsewhere. "
            "`clawker-fw certs rotate --authority` replaces a damaged authority."
            if loaded.settings.otel.endpoint
            else "Set `otel.endpoint` first: then `clawker-fw run` makes what is missing.",
        ) from None


def _kept(chosen: Options, store: "CertificateStore", loaded: "Loaded", format_: Format, sentence: str) -> None:
    from clawker_fw.report import certs as report

    answer = report.CertificatesAnswer(chosen.project, loaded.settings.otel.endpoint, report.rows(store.kept()))
    _answer(answer, format_, sentence)


def _answer(answer: "CertificatesAnswer", format_: Format, sentence: str) -> None:
    from clawker_fw.report import certs as report

    if format_ is Format.JSON:
        from clawker_fw.report.documents.certs import CertsDocument

        print_json(CertsDocument.of(answer))
        return
    if answer.rows:
        from clawker_fw.report import text

        text.console().print(text.table(*report.table(answer)))
    terminal.answer(sentence)
