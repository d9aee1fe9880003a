"""The commands about certificates: `certs show`, `rotate` and `export`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import group
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json, print_table, reading
from clawker_fw.errors import ExitCode, RefusedError, SettingsError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.certificates.store import InspectionStore, TelemetryStore
    from clawker_fw.report.certs import CertsDocument
    from clawker_fw.settings.loaded import Loaded

certs_app = group("certs", "Show, renew and export certificates. They are for telemetry and inspected TLS.")


class Exported(StrEnum):
    """What is exported: what the collector needs, or the roots that agents trust."""

    COLLECTOR = "collector"
    ROOTS = "roots"


@certs_app.command("show")
def show(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Show each certificate: its purpose, its expiry, and where it is live.

    With certificates for telemetry, Envoy, CoreDNS and the collector authenticate each other. Telemetry is ready
    when Envoy and CoreDNS have loaded theirs. Exit 0 when telemetry is ready or not set up, else 1.

    Certificates for inspection are the roots that agents trust, and the intermediates that sign for the hosts of
    your rules. The answer lists agents without the newest root. A root's key is only in the state folder of the
    machine that made it.

    Example: clawker-fw certs show
    """
    from clawker_fw.reconcile import inputs

    chosen: Options = context.obj
    from clawker_fw.diagnose.diagnosis import telemetry_obstacle
    from clawker_fw.report import certs as report

    _, comparison = reading(chosen)
    loaded = session.load(chosen)
    kept = inputs.telemetry_store(chosen, loaded, keeps=False).kept()
    provision = comparison.provision
    usable = provision.credentials is not None
    unsent = telemetry_obstacle(comparison.observed, comparison.desired, provision.live) if usable else ""
    reasons = (f"{unsent}; `clawker-fw run` changes that" if unsent else "", provision.reason)
    answer = report.CertsDocument(
        project=chosen.project,
        endpoint=loaded.settings.otel.endpoint,
        ready=usable and not unsent,
        reason="; ".join(filter(None, reasons)) or None,
        due=provision.due,
        certificates=report.telemetry_rows(kept, comparison.observed),
    )
    with _roots(chosen, keeps=False) as store:
        answer = report.with_inspection(answer, store.kept(), comparison.observed, time.time())
    _answer(answer, format_, report.telemetry_verdict(answer), report.inspection_verdict(answer))
    if answer.endpoint and not answer.ready:
        raise typer.Exit(ExitCode.DRIFT)


@certs_app.command("rotate")
def rotate(
    context: typer.Context,
    *,
    authority: Annotated[
        bool,
        typer.Option(
            "--authority",
            help="Also make a new CA for telemetry. The former one stays trusted until the next rotation.",
        ),
    ] = False,
    roots: Annotated[
        bool, typer.Option("--roots", help="Make a new root for agents to trust, and renew nothing for telemetry.")
    ] = False,
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once",
            help="With `--roots`: forget the former roots, and sign with the new one from the next run on, "
            "because a key has leaked. Inspected requests of each agent fail until you recreate it.",
        ),
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Renew certificates for telemetry, or the root that agents trust.

    `run`, or a watcher, then applies them live. No connection is cut.

    Recreate agents within seven days, so that they get a new root. Until then, the former root signs.

    Example: clawker-fw certs rotate && clawker-fw run
    """
    if authority and roots:
        raise typer.BadParameter("--authority is for telemetry, and --roots for inspection: use one of them")
    if at_once and not roots:
        raise typer.BadParameter("--at-once needs --roots")
    if roots:
        _rotate_roots(context.obj, format_, at_once=at_once)
    else:
        _rotate_telemetry(context.obj, format_, authority=authority)


def _rotate_telemetry(chosen: Options, format_: Format, *, authority: bool) -> None:
    with _telemetry(chosen) as (store, loaded):
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
        then = f"Install the collector's new certificate first: `clawker-fw certs export collector DIR`. {then}"
    _answer_kept(chosen, store, loaded, format_, f"The certificates have been renewed. {then}")


def _rotate_roots(chosen: Options, format_: Format, *, at_once: bool) -> None:
    from clawker_fw.report import certs as report

    _, comparison = reading(chosen)
    with _roots(chosen, keeps=True) as store:
        if not at_once and not any(issuer.pair.key for issuer in store.kept().values()):
            raise RefusedError(
                "roots-missing",
                f"There is no root of {chosen.project} on this machine, so there is nothing to rotate.",
                hint="`clawker-fw run` makes one with the first rule that inspects connections. If it is on "
                "another machine, rotate it there.",
            )
        store.rotate(at_once=at_once)
        endpoint = comparison.blueprint.settings.otel.endpoint
        answer = report.CertsDocument(project=chosen.project, endpoint=endpoint)
        answer = report.with_inspection(answer, store.kept(), comparison.observed, time.time())
    _answer(answer, format_, report.inspection_verdict(answer))


@certs_app.command("export")
def export(
    context: typer.Context,
    what: Annotated[
        Exported,
        typer.Argument(
            metavar="collector|roots", help="The collector's certificates, or the roots that agents trust."
        ),
    ],
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Where to write the collector's.")] = None,
    *,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Write what the collector needs, or print the roots that agents trust.

    `certs export collector DIR` writes `ca.crt`, `collector.crt` and `collector.key`. The certificate is for the
    host of `otel.endpoint`, or for `otel.server_name`. It is a new one each time, and valid for a year. The
    collector must require client certificates signed by `ca.crt`.

    `certs export roots` prints the roots as PEM, without keys, for programs with their own list of authorities.

    Example: clawker-fw certs export collector /etc/otelcol/tls
    """
    chosen: Options = context.obj
    if what is Exported.ROOTS:
        if folder:
            raise typer.BadParameter("`certs export roots` takes no DIR")
        _answer_roots(chosen, format_)
        return
    if folder is None:
        raise typer.BadParameter("What the collector needs is written into a folder: name it")
    with _telemetry(chosen) as (store, loaded):
        otel = loaded.settings.otel
        if otel.endpoint is None:
            raise SettingsError(
                "endpoint-missing",
                "`otel.endpoint` is not set, so the collector's name is unknown.",
                hint="Set it to HOST:PORT.",
            )
        store.export(otel.server_name or otel.endpoint.rpartition(":")[0], folder)
    _answer_kept(chosen, store, loaded, format_, f"Wrote ca.crt, {what}.crt and {what}.key into {folder}.")


def _answer_roots(chosen: Options, format_: Format) -> None:
    from clawker_fw.report.certs import CertsDocument

    endpoint = session.load(chosen).settings.otel.endpoint
    pem = _bundle(chosen).decode()
    if format_ is Format.JSON:
        print_json(CertsDocument(project=chosen.project, endpoint=endpoint, pem=pem))
    else:
        terminal.answer(pem.rstrip("\n"))


def _bundle(chosen: Options) -> bytes:
    """Return the roots that agents have to trust, from this machine or from the stack."""
    from clawker_fw.agents.trusted_roots import roots_of
    from clawker_fw.certificates import authority
    from clawker_fw.certificates.store import bundle

    with _roots(chosen, keeps=False) as store:
        if trusted := authority.trusted([*store.kept().values()], time.time()):
            return bundle(trusted)
    _, comparison = reading(chosen)
    if live := roots_of(comparison.observed):
        return live
    raise RefusedError(
        "roots-missing",
        f"There is no root of {chosen.project} here, nor in its stack.",
        hint="`clawker-fw run` makes it with the first rule that inspects connections.",
    )


@contextmanager
def _telemetry(chosen: Options) -> "Iterator[tuple[TelemetryStore, Loaded]]":
    """Yield the telemetry certificates and the settings, and translate errors of files."""
    from clawker_fw.certificates.store import sentence
    from clawker_fw.reconcile import inputs

    loaded = session.load(chosen)
    try:
        yield inputs.telemetry_store(chosen, loaded, keeps=True), loaded
    except (OSError, ValueError) as error:
        raise RefusedError(
            "certs-unusable",
            f"The certificates can't be used: {sentence(error)}.",
            hint="`clawker-fw run` makes what is missing, unless the stack has certificates from elsewhere. "
            "`clawker-fw certs rotate --authority` replaces a damaged authority."
            if loaded.settings.otel.endpoint
            else "Set `otel.endpoint` first: then `clawker-fw run` makes what is missing.",
        ) from None


@contextmanager
def _roots(chosen: Options, *, keeps: bool) -> "Iterator[InspectionStore]":
    """Yield the roots that agents trust, and translate errors of files."""
    from clawker_fw.certificates.store import sentence
    from clawker_fw.reconcile import inputs

    try:
        yield inputs.inspection_store(chosen, keeps=keeps)
    except (OSError, ValueError) as error:
        raise RefusedError("certs-unusable", f"The roots can't be used: {sentence(error)}.") from None


def _answer_kept(
    chosen: Options, store: "TelemetryStore", loaded: "Loaded", format_: Format, sentence: str
) -> None:
    from clawker_fw.report import certs as report

    rows, endpoint = report.telemetry_rows(store.kept()), loaded.settings.otel.endpoint
    answer = report.CertsDocument(project=chosen.project, endpoint=endpoint, certificates=rows)
    _answer(answer, format_, sentence)


def _answer(answer: "CertsDocument", format_: Format, *sentences: str) -> None:
    from clawker_fw.report import certs as report

    if format_ is Format.JSON:
        print_json(answer)
        return
    for sentence in filter(None, sentences):
        terminal.answer(sentence)
    if answer.certificates:
        print_table(*report.table(answer))
