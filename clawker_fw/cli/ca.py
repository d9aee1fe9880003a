"""The commands about the authority of inspected connections: `ca show`, `rotate` and `export`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import Commands, Panel, app
from clawker_fw.cli.output import write_output
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json, reading
from clawker_fw.errors import RefusedError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.certificates.credentials import Authorities
    from clawker_fw.certificates.inspection import InspectionStore
    from clawker_fw.model import Observed
    from clawker_fw.report.ca import AuthorityAnswer

ca_app = typer.Typer(
    cls=Commands,
    name="ca",
    help="Show, export and rotate the roots that agents trust.",
    rich_markup_mode=None,
)
app.add_typer(ca_app, rich_help_panel=Panel.AGENTS)


@ca_app.command("show")
def show(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Show roots, intermediates, and agents without the newest root.

    Agents trust the roots; `agent run`, `agent flags` and `agent compose` give them to agents. An intermediate
    signs the certificates of inspected hosts, beside Envoy. A root's key is on the machine where it was made, in
    your state folder.

    Example: clawker-fw ca show
    """
    chosen: Options = context.obj
    with reading(chosen) as (_, seen), _usable():
        _answer(_known(_store(chosen), seen.observed), format_)


@ca_app.command("export")
def export(
    context: typer.Context,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write a file, in place of standard output.")
    ] = None,
) -> None:
    """Print the roots that agents must trust, as PEM.

    For what is not started by docker or compose, or keeps a list of authorities of its own. There is no key in it.

    Example: clawker-fw ca export --output roots.pem
    """
    chosen: Options = context.obj
    with _usable():
        pem = _bundle(chosen)
    if output is None:
        terminal.answer(pem.decode().rstrip("\n"))
        return
    write_output(output, pem)


@ca_app.command("rotate")
def rotate(
    context: typer.Context,
    *,
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once",
            help="Forget the former roots, and sign with the new one from the next run on: for when a key has "
            "become known. What is inspected then fails in every agent until it is created again.",
        ),
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Make a new root. No connection is cut, and agents have seven days to get it.

    Until then the former one signs, and it stays trusted for as long as something that it has signed can be in
    use. `run` gives the stack the new bundle. Agents get it when they are created again.

    It also repairs damaged files of roots, as after a power loss. The stack's copy restores a certificate. A key
    has no copy: without it, the new root signs at once for hosts that the stack has no intermediate for.

    Example: clawker-fw ca rotate && clawker-fw run
    """
    chosen: Options = context.obj
    store = _store(chosen)
    with reading(chosen) as (_, seen), _usable():
        damaged = store.damaged
        if not at_once and not damaged and not any(each.signs for each in store.kept()):
            raise RefusedError(
                "ca-missing",
                f"There is no root of {chosen.project} on this machine, so there is nothing to rotate.",
                hint="`clawker-fw run` makes one with the first rule that inspects connections. If it is on "
                "another machine, rotate it there.",
            )
        store.rotate(at_once=at_once, live=_running(seen.observed).trust)
        for path in damaged:
            session.warn_of_repair(path)
        _answer(_known(store, seen.observed), format_)


def _store(chosen: Options) -> "InspectionStore":
    from clawker_fw.certificates.inspection import InspectionStore
    from clawker_fw.private_files import state_folder

    session.warn_of_project(chosen, session.load(chosen))
    return InspectionStore(state_folder() / chosen.project, chosen.project, keeps=True)


@contextmanager
def _usable() -> Iterator[None]:
    """Translate what the files of the authority can't be used for."""
    try:
        yield
    except (OSError, ValueError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        raise RefusedError("ca-unusable", f"The roots can't be used: {text}.") from None


def _known(store: "InspectionStore", observed: "Observed") -> "AuthorityAnswer":
    """Return what is known here and in the stack."""
    from clawker_fw.agents import trust
    from clawker_fw.certificates.inspection import roots_in
    from clawker_fw.report import ca as report

    kept, inspects = store.kept(), bool(trust.roots_of(observed))
    has = _running(observed)
    live = list(roots_in(has.trust))
    every = {each.identifier: each for each in (*live, *kept)}
    signed = report.intermediates(has.intermediates, list(every.values()))
    roots = report.roots(kept, live, signed[0].root if signed else "", time.time())
    without = trust.without(roots[0].root.identifier, observed) if roots and inspects else ()
    return report.AuthorityAnswer(store.project, inspects, roots, signed, without)


def _running(observed: "Observed") -> "Authorities":
    """Return the roots and intermediates that the stack's Envoy has."""
    from clawker_fw.certificates.credentials import NO_AUTHORITIES
    from clawker_fw.model import Sibling
    from clawker_fw.stack.envoy import signing

    envoy = observed.siblings.get(Sibling.ENVOY)
    return signing.running(envoy.files) if envoy else NO_AUTHORITIES


def _bundle(chosen: Options) -> bytes:
    """Return the roots that agents have to trust: those that are kept here, or those of the stack."""
    from clawker_fw.agents.trust import roots_of
    from clawker_fw.certificates import authority
    from clawker_fw.certificates.inspection import bundle

    if trusted := authority.trusted(_store(chosen).kept(), time.time()):
        return bundle(trusted)
    with reading(chosen) as (_, seen):
        if live := roots_of(seen.observed):
            return live
    raise RefusedError(
        "ca-missing",
        f"There is no authority of {chosen.project} here, nor in its stack.",
        hint="`clawker-fw run` makes it with the first rule that inspects connections.",
    )


def _answer(answer: "AuthorityAnswer", format_: Format) -> None:
    from clawker_fw.report import ca as report

    if format_ is Format.JSON:
        from clawker_fw.report.documents.ca import AuthorityDocument

        print_json(AuthorityDocument.of(answer))
        return
    from clawker_fw.report import text

    if answer.roots:
        text.console().print(text.table(*report.root_table(answer)))
    if answer.intermediates:
        terminal.answer("")
        text.console().print(text.table(*report.intermediate_table(answer)))
    terminal.answer(report.verdict(answer))
