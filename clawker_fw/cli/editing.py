"""The commands that edit rules: `rules allow`, `deny` and `remove`. Each then applies them."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clawker_fw.cli import session, stack
from clawker_fw.cli.parameters import DryRunOption, Format, FormatOption, LockOption, Options, unparsed
from clawker_fw.cli.rules import rules_app
from clawker_fw.cli.session import print_json, print_report
from clawker_fw.errors import EngineError, ExitCode, FirewallError, OutputError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.report.documents.run import RunDocument
    from clawker_fw.settings.edit.edits import Addition, Removal
    from clawker_fw.settings.edit.rules_file import Decide, Edited

NamesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME",
        help="`a.test`, `.a.test` with everything below it, `a.test:8443` or `http://a.test`. "
        "Several are possible.",
    ),
]
ProtocolOption = Annotated[
    str | None,
    typer.Option(
        "--proto",
        metavar="PROTOCOL",
        help="https, http, tcp, ssh or udp. Default: https; for deny, every protocol.",
    ),
]
PortOption = Annotated[
    str | None,
    typer.Option(
        "--port",
        metavar="PORT",
        help="Also several, e.g. 8000-8010. Default: the usual one; for deny, every port.",
    ),
]
AsOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The name that agents use for an IPv4 address.")
]
PrivateOption = Annotated[
    bool | None,
    typer.Option(
        "--private/--no-private", help="The name may resolve to private addresses (`allow_private`), or not."
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="TIME", help="When the rule ends: 30m, 8h, 7d from now, 2027-01-31T18:00:00Z, or never."
    ),
]
NoteOption = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="What the rule is for.")]
PathOption = Annotated[
    list[str] | None,
    typer.Option("--path", metavar="PATH", help="Only this path with all below it, and not the whole host."),
]
MethodsOption = Annotated[
    str | None,
    typer.Option("--methods", metavar="GET,HEAD", help="Only these methods of the paths."),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Accept localhost, a public suffix, or everything below one.")
]
NoReloadOption = Annotated[bool, typer.Option("--no-reload", help="Only edit the file; apply nothing.")]

LOCK_WAIT = "30s"


@rules_app.command("allow")
def allow(
    context: typer.Context,
    names: NamesArgument,
    *,
    protocol: ProtocolOption = None,
    port: PortOption = None,
    as_: AsOption = None,
    private: PrivateOption = None,
    until: UntilOption = None,
    note: NoteOption = None,
    path: PathOption = None,
    methods: MethodsOption = None,
    force: ForceOption = False,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Allow destinations.

    The settings file is edited in place and then applied, and its comments and order are kept. Each rule is
    `added`, or, if there is one for the same destination, protocol and port, `changed` or `unchanged`. Only what
    an option names changes. A rule never ends sooner than before, and one that has ended needs a new `--until`.

    Example: clawker-fw rules allow .example.org uploads.example.org:8443 --until 8h --note "for the release"
    """
    from clawker_fw.settings.edit import words

    fields = {"action": "allow", "as": as_, "allow_private": private, "force": force, "until": until, "note": note}
    with _translated():
        paths = words.path_rules(path, methods)
        additions = words.additions(names, protocol, port, {**fields, "path_rules": paths}, datetime.now(UTC))
    orders = EditOrders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    _add(context.obj, additions, orders)


@rules_app.command("deny")
def deny(
    context: typer.Context,
    names: NamesArgument,
    *,
    protocol: ProtocolOption = None,
    port: PortOption = None,
    until: UntilOption = None,
    note: NoteOption = None,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Deny destinations that other rules allow.

    Without a protocol or a port, a NAME is denied for all of them. Rules are `added`, `changed` or `unchanged` as
    by `rules allow`.

    Example: clawker-fw rules deny uploads.example.org
    """
    from clawker_fw.settings.edit import words

    fields = {"action": "deny", "until": until, "note": note}
    with _translated():
        additions = words.additions(names, protocol, port, fields, datetime.now(UTC))
    orders = EditOrders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    _add(context.obj, additions, orders)


@rules_app.command("remove")
def remove_rules(
    context: typer.Context,
    names: NamesArgument,
    *,
    protocol: Annotated[
        str | None, typer.Option("--proto", metavar="PROTOCOL", help="Only rules with this protocol.")
    ] = None,
    port: Annotated[str | None, typer.Option("--port", metavar="PORT", help="Only rules with this port.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="allow|deny", help="Only rules that do this.")
    ] = None,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Remove rules from the settings file, and apply the rest.

    All rules for the NAME are removed, or only those with the given protocol, port and action. An address has the
    NAME of its `as`. A NAME without such a rule is `not found`, which is not an error. Rules that still allow part
    of it are shown.

    Example: clawker-fw rules remove api.example.com
    """
    from clawker_fw.settings.edit import words
    from clawker_fw.settings.edit.edits import remove

    with _translated():
        removals = [_removal(words.named(name, protocol, port), action) for name in names]
    orders = EditOrders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    edit_rules(context.obj, lambda entries: remove(entries, removals, time.time()), orders)


@dataclass(frozen=True, slots=True)
class EditOrders:
    """What to do with an edit."""

    no_reload: bool
    dry_run: bool
    lock_wait: float
    format_: Format


def _add(chosen: Options, additions: "Sequence[Addition]", orders: EditOrders) -> None:
    from clawker_fw.settings.edit.edits import add

    edit_rules(chosen, lambda entries: add(entries, additions, time.time()), orders)


def edit_rules(chosen: Options, decide: "Decide", orders: EditOrders) -> None:
    """Edit the settings file, then apply it, and answer with both."""
    from clawker_fw.report import rules
    from clawker_fw.rules.review import review
    from clawker_fw.settings.edit import rules_file

    done = rules_file.edit(chosen.config, os.environ, decide, write=not orders.dry_run, group=chosen.group)
    now = time.time()
    earlier = {remark.rule for remark in review(done.before.rules, now)}
    remarks = [remark for remark in review(done.after.rules, now) if remark.rule not in earlier]
    applying = done.changed and not orders.dry_run and not orders.no_reload
    if not applying:
        session.warn_of_rules(remarks)  # otherwise they are told with all others
    if orders.format_ is Format.TEXT:
        for line in rules.edit_lines(done.results):
            terminal.answer(line)
        if orders.dry_run and done.changed:
            terminal.answer(f"Nothing was written. {done.path} would be changed:")
            terminal.answer(rules.edit_diff(done))
    planned = _planned(chosen, done) if orders.dry_run and done.changed and not orders.no_reload else []
    if orders.format_ is Format.TEXT:
        for line in planned:
            terminal.answer(line)
    applied = _Applied()
    try:
        if applying:
            _apply(chosen, done, orders, applied)
    finally:
        if orders.format_ is Format.JSON:
            from clawker_fw.report.documents import ErrorPart
            from clawker_fw.report.documents.rules import RulesEditDocument

            named_by, dry_run = done.after.named_by(chosen.given), orders.dry_run
            document = RulesEditDocument.of(done, named_by, remarks, applied.reload, dry_run=dry_run)
            part = ErrorPart.of(applied.error) if applied.error else None
            print_json(replace(document, summary=planned, error=part))
    if orders.dry_run and done.changed:
        raise typer.Exit(ExitCode.DRIFT)


def _planned(chosen: Options, done: "Edited") -> list[str]:
    """Return the effect of applying the edited settings, or nothing without a stack or an engine."""
    from clawker_fw.reconcile.converge import NOT_UP
    from clawker_fw.report import summary

    try:
        return stack.summary_with(chosen, done.after)
    except EngineError:
        return []
    except FirewallError as error:
        return [] if error.code == NOT_UP else summary.refusal_lines(error)


@dataclass(slots=True)
class _Applied:
    """The result of applying edited settings: an answer or an error."""

    reload: "RunDocument | None" = None
    error: FirewallError | None = None


def _apply(chosen: Options, done: "Edited", orders: EditOrders, applied: _Applied) -> None:
    """Apply the edited settings to a stack that is up. After a failure, the edit stays, and the error says so."""
    try:
        answer = stack.apply_settings(chosen, stack.Order(orders.lock_wait))
        if orders.format_ is Format.JSON:
            applied.reload = answer.document()
        else:
            for part in answer.text():
                print_report(part)
    except OutputError:
        raise
    except FirewallError as error:
        from clawker_fw.reconcile.converge import NOT_UP

        if error.code == NOT_UP:
            if orders.format_ is Format.TEXT:
                terminal.answer(f"Saved in {done.path}: it applies with the first `clawker-fw run`.")
            return
        error.context = (*error.context, f"The rules are saved in {done.path}, and not applied.")
        applied.error = error
        raise


# --- rules as the command line names them ---------------------------------------------------------------------


@contextmanager
def _translated() -> Iterator[None]:
    from clawker_fw.settings.edit.words import WordsError

    try:
        yield
    except WordsError as error:
        raise typer.BadParameter(str(error), param_hint=error.option or None) from error


def _removal(named: dict[str, Any], action: str | None) -> "Removal":
    """Return which rules to remove. `named` comes from a name and its options; all else may be anything."""
    from clawker_fw.rules.destination import is_address
    from clawker_fw.rules.rule import HOST, HOST_NAME
    from clawker_fw.settings.edit.edits import Removal
    from clawker_fw.settings.edit.words import WordsError, rule

    name = HOST_NAME if named["dst"] == HOST else named["dst"]
    if is_address(name):
        raise WordsError(f"{name!r} is an address, and rules are removed by the name that agents use: their `as`")
    allowing = rule({"dst": name, "action": action or "allow", "force": True})
    denial = rule(named | {"dst": name, "action": "deny"})  # which has neither a default protocol nor a port
    return Removal(denial.destination, denial.protocol, denial.written_port, allowing.action if action else None)
