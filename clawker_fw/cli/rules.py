"""The commands about rules: `rules list`, `check`, `presets`, `add`, `allow`, `deny`, `remove` and `import`.

What those about the worth of rules have in common is in `worth`.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import completion, given, rule_words, stack, worth
from clawker_fw.cli.app import Commands, Panel, app
from clawker_fw.cli.comparing import print_json
from clawker_fw.cli.parameters import Format, FormatOption, LockOption, Options, period, unparsed
from clawker_fw.errors import ExitCode, FirewallError, MistakesError, OutputError, SettingsError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.report.documents.run import RunDocument
    from clawker_fw.rules.importing import Imported
    from clawker_fw.settings.edit.edits import Addition
    from clawker_fw.settings.edit.rules_file import Decide, Edited
    from clawker_fw.settings.loaded import Loaded

rules_app = typer.Typer(
    cls=Commands,
    name="rules",
    help="List, check and edit the rules.",
    rich_markup_mode=None,
)
app.add_typer(rules_app, rich_help_panel=Panel.RULES)

NamesArgument = Annotated[list[str], typer.Argument(metavar="NAME", autocompletion=completion.rules, hidden=True)]
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
ShortenOption = Annotated[
    bool, typer.Option("--shorten", help="Let `--until` end a rule that is there sooner than it would end.")
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
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would be done; exit 1 if anything would be.")
]

SinceOption = Annotated[
    float,
    typer.Option(
        "--since",
        metavar="DURATION",
        parser=period,
        help="Only what was used in this time: 12h, 30d, 4w.",
    ),
]

_LOCK_WAIT = "30s"


@rules_app.command("list")
def list_rules(
    context: typer.Context,
    *,
    used: Annotated[
        bool, typer.Option("--used", help="Also when each was used last, and how much. Asks the engine.")
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show all rules in their canonical order, and where each is written. No engine is needed without `--used`.

    Example: clawker-fw rules list --format json | jq -r '.rules[].dst'
    """
    loaded, now = _loaded(context.obj), time.time()
    from clawker_fw.report import rules

    known = worth.known(context.obj) if used else None
    if format_ is Format.JSON:
        from clawker_fw.report.documents.rules import RulesListDocument

        print_json(RulesListDocument.of(loaded, given.named_by(context.obj, loaded), now, known))
    elif known:
        from clawker_fw.report import text
        from clawker_fw.report import usage as report
        from clawker_fw.usage.worth import worths

        text.console().print(text.table(*report.rows(worths(loaded.rules, known), now)))
        terminal.answer(report.since(known))
    elif loaded.rules.rules:
        from clawker_fw.report import text

        text.console().print(text.table(*rules.rows(loaded, now)))
    else:
        terminal.answer("There are no rules: everything is denied.")


@rules_app.command("check")
def check_rules(
    context: typer.Context,
    *,
    against: Annotated[
        float | None,
        typer.Option(
            "--against",
            metavar="DURATION",
            parser=period,
            help="Compare with what agents have used and were refused in this time; exit 1 if it would change.",
        ),
    ] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Check the settings and all rules, with those of included files. Exit 0 when they are valid, else 3.

    All mistakes are shown; other commands show the first ten.

    Warns of rules that decide nothing: those that have ended, and those that other rules always deny. Where your
    file of secrets is, it must let each one go where a rule would send it; exit 6 if not. No engine is needed.

    With `--against 7d`, the engine is asked what agents have used and what they were refused in the last week.
    Shows what of it these rules would refuse, and what they would allow; exit 1 if there is anything. With
    `--config`, the rules may be those of an edited copy.

    Example: clawker-fw rules check --against 7d
    """
    try:
        loaded = _loaded(context.obj)
    except MistakesError as error:
        raise error.in_full() from error
    from clawker_fw.report import rules
    from clawker_fw.rules.review import review

    remarks = (*review(loaded.rules, time.time()), *given.check_secrets(context.obj, loaded))
    compared = None if against is None else worth.compared(context.obj, loaded, against)
    if format_ is Format.JSON:
        from clawker_fw.report.documents.rules import RulesCheckDocument

        print_json(RulesCheckDocument.of(loaded, given.named_by(context.obj, loaded), remarks, compared))
    else:
        terminal.answer(f"valid  {rules.summary(loaded)}")
        for each in remarks:
            terminal.answer(f"warning[{each.code}]: {each}.")
        if compared:
            from clawker_fw.report import usage as report

            for line in report.against_lines(compared):
                terminal.answer(line)
    if compared and compared.differs:
        raise typer.Exit(ExitCode.DRIFT)


@rules_app.command("unused")
def unused_rules(
    context: typer.Context,
    *,
    since: SinceOption = unparsed("30d"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show rules that no agent has used, and how to remove each.

    A rule counts as unused only as far back as is known, and the answer says since when that is. A connection over
    https or http counts when it ends; how many are open is shown. What we try ourselves does not count.

    Example: clawker-fw rules unused --since 30d
    """
    loaded = _loaded(context.obj)
    known = worth.known(context.obj)
    from clawker_fw.usage.worth import Period, worths

    found, within = worths(loaded.rules, known), Period.of(known, since)
    if format_ is Format.JSON:
        from clawker_fw.report.documents.usage import RulesUnusedDocument

        print_json(RulesUnusedDocument.of(loaded, given.named_by(context.obj, loaded), found, within, known))
        return
    from clawker_fw.report import usage as report

    for line in report.unused_lines(found, within, known, worth.editable(loaded)):
        terminal.answer(line)


@rules_app.command("narrow")
def narrow_rules(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar=".NAME", autocompletion=completion.rules, hidden=True)],
    *,
    since: SinceOption = unparsed("30d"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show which names below a rule were used.

    And the commands that would allow only these: nothing is edited. The answer says since when it is known what
    was used, and whether further names were used that are not told apart any more.

    Example: clawker-fw rules narrow .cdn.example.com
    """
    loaded = _loaded(context.obj)
    known = worth.known(context.obj)
    from clawker_fw.usage.worth import Period, narrowed, worths

    within = Period.of(known, since)
    found = narrowed(worths(loaded.rules, known), worth.subtree(name, loaded), within)
    if format_ is Format.JSON:
        from clawker_fw.report.documents.usage import RulesNarrowDocument

        named_by = given.named_by(context.obj, loaded)
        print_json(RulesNarrowDocument.of(loaded, named_by, found, within, known))
        return
    from clawker_fw.report import usage as report

    for line in report.narrow_lines(found, within, known, worth.editable(loaded)):
        terminal.answer(line)


@rules_app.command("presets")
def list_presets(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=completion.presets, hidden=True)
    ] = None,
    *,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show the presets of this release.

    A preset has the rules for a tool or a service; `presets` in the settings names those that count. With NAME,
    show all of it: its rules, whether tests prove that each is needed, and what it leaves out. Neither an engine
    nor settings are needed.

    Example: clawker-fw rules presets pip
    """
    from clawker_fw.report import presets as report
    from clawker_fw.settings.preset import names as known
    from clawker_fw.settings.preset import preset

    try:
        found = [preset(each) for each in dict.fromkeys(names or known())]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from error
    if format_ is Format.JSON:
        from clawker_fw.report.documents.presets import PresetsDocument

        print_json(PresetsDocument.of(found))
    elif names:
        for number, each in enumerate(found):
            for line in ([""] if number else []) + list(report.lines(each)):
                terminal.answer(line)
    else:
        from clawker_fw.report import text

        text.console().print(text.table(*report.rows(found)))


@rules_app.command("add")
def add_rules(
    context: typer.Context,
    names: NamesArgument,
    *,
    protocol: ProtocolOption = None,
    port: PortOption = None,
    action: Annotated[str, typer.Option("--action", metavar="allow|deny", help="What the rule does.")] = "allow",
    as_: AsOption = None,
    private: PrivateOption = None,
    until: UntilOption = None,
    shorten: ShortenOption = False,
    note: NoteOption = None,
    path: PathOption = None,
    methods: MethodsOption = None,
    force: ForceOption = False,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(_LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Add rules to the settings file, and apply them.

    A NAME is `a.test`, `.a.test` with everything below it, `a.test:8443` or `http://a.test`.

    The file is edited in place, and its comments and order are kept. Each rule is `added`, or, if there is one for
    the same destination, protocol, port and action, `changed` or `unchanged`. Only what an option names changes.
    A rule never ends sooner than before without `--shorten`, and one that has ended needs a new `--until`.

    Example: clawker-fw rules add .example.org uploads.example.org:8443 --until 8h --note "for the release"
    """
    paths = rule_words.path_rules(path, methods)
    fields = {"action": action, "as": as_, "allow_private": private, "force": force, "until": until, "note": note}
    additions = rule_words.additions(names, protocol, port, {**fields, "path_rules": paths})
    orders = _Orders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    _add(context.obj, additions, orders, shorten=shorten)


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
    shorten: ShortenOption = False,
    note: NoteOption = None,
    path: PathOption = None,
    methods: MethodsOption = None,
    force: ForceOption = False,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(_LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Allow destinations: `rules add --action allow`. A NAME may have a protocol and a port: `http://a.test:8080`.

    Of a rule that is there, only what an option names is changed.

    Example: clawker-fw rules allow api.example.com --until 30m
    """
    paths = rule_words.path_rules(path, methods)
    fields = {"action": "allow", "as": as_, "allow_private": private, "force": force, "until": until, "note": note}
    additions = rule_words.additions(names, protocol, port, {**fields, "path_rules": paths})
    orders = _Orders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    _add(context.obj, additions, orders, shorten=shorten)


@rules_app.command("deny")
def deny(
    context: typer.Context,
    names: NamesArgument,
    *,
    protocol: ProtocolOption = None,
    port: PortOption = None,
    until: UntilOption = None,
    shorten: ShortenOption = False,
    note: NoteOption = None,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(_LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Deny destinations that other rules allow: `rules add --action deny`.

    Without a protocol or a port, a NAME is denied for all of them.

    Example: clawker-fw rules deny uploads.example.org
    """
    additions = rule_words.additions(names, protocol, port, {"action": "deny", "until": until, "note": note})
    orders = _Orders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    _add(context.obj, additions, orders, shorten=shorten)


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
    as_: AsOption = None,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(_LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Remove rules from the settings file, and apply the rest.

    All rules for the NAME are removed, or only those with the given protocol, port and action. With `--as`, the
    NAME is an address or a network, and only rules for it are removed. A NAME without such a rule is `not found`,
    which is no failure: afterwards there is none, as was asked for. If another rule still allows the same, or some
    of it, it is shown.

    Example: clawker-fw rules remove api.example.com
    """
    from clawker_fw.settings.edit.edits import remove

    removals = rule_words.removals(names, protocol, port, action, as_)
    orders = _Orders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    _edit(context.obj, lambda there: remove(there, removals, time.time()), orders)


@rules_app.command("import")
def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", allow_dash=True, hidden=True)],
    *,
    partial: Annotated[
        bool, typer.Option("--partial", help="Import what can be imported, although something is left out.")
    ] = False,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(_LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Add the rules of a rules file of clawker, and apply them.

    The file has `rules` with `dst`, `proto`, `port` and `action`. Each is `taken`, or `differs` as is said, or
    is `left out` with the reason: a restriction that can't be kept, like `path_rules`, is never dropped. If
    anything is left out, nothing is imported, and the exit code is 3, unless `--partial` is given. Rules that are
    there already are not changed. The FILE `-` is standard input.

    Example: clawker-fw rules import --partial egress-rules.yaml
    """
    from clawker_fw.settings.edit.edits import Addition

    imported = rule_words.imported_from(file)
    orders = _Orders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_, imported=imported)
    left_out = sum(each.rule is None for each in imported)
    if left_out and not partial:
        _print_imported(imported, format_)
        raise SettingsError(
            "rules-left-out",
            f"{left_out} of {len(imported)} entries can't be imported, so none was imported.",
            hint="With --partial, the others are imported.",
        )
    additions = [Addition(each.rule, stays=True) for each in imported if each.rule]
    _add(context.obj, additions, orders)


@dataclass(frozen=True, slots=True)
class _Orders:
    """How to do an edit, and what is imported by it."""

    no_reload: bool
    dry_run: bool
    lock_wait: float
    format_: Format
    imported: "Sequence[Imported] | None" = None


def _loaded(chosen: Options) -> "Loaded":
    loaded = given.load(chosen)
    given.warn_of_project(chosen, loaded)
    return loaded


def _print_imported(imported: "Sequence[Imported]", format_: Format) -> None:
    if format_ is Format.JSON:
        from clawker_fw.report.documents.rules import RulesEditDocument

        print_json(RulesEditDocument.refused(imported))
    else:
        from clawker_fw.report import rules

        for line in rules.import_lines(imported):
            terminal.answer(line)


def _add(chosen: Options, additions: "Sequence[Addition]", orders: _Orders, *, shorten: bool = False) -> None:
    from clawker_fw.settings.edit.edits import add

    _edit(chosen, lambda there: add(there, additions, time.time(), shorten=shorten), orders)


def _edit(chosen: Options, decide: "Decide", orders: _Orders) -> None:
    """Edit the settings file, print what has become of each rule, and apply the settings."""
    from clawker_fw.report import rules
    from clawker_fw.rules.review import review
    from clawker_fw.settings.edit import rules_file

    done = rules_file.edit(
        chosen.config, os.environ, decide, write=not orders.dry_run, resolve=given.resolve(chosen)
    )
    now = time.time()
    known = {each.rule for each in review(done.before.rules, now)}
    remarks = [each for each in review(done.after.rules, now) if each.rule not in known]
    applying = done.changed and not orders.dry_run and not orders.no_reload
    if not applying:
        given.warn_of_rules(remarks)  # otherwise they are told with all others
    if orders.format_ is Format.TEXT:
        for line in (*rules.import_lines(orders.imported or ()), *rules.edit_lines(done.results)):
            terminal.answer(line)
        if orders.dry_run and done.changed:
            terminal.answer(f"Nothing was written. {done.path} would be changed:")
            terminal.answer(rules.edit_diff(done))
    reloaded: list[RunDocument] = []  # if it succeeds, its answer
    try:
        if applying:
            _apply(chosen, done, orders, reloaded.append)
    finally:
        if orders.format_ is Format.JSON:
            from clawker_fw.report.documents.rules import RulesEditDocument

            named_by, dry_run = given.named_by(chosen, done.after), orders.dry_run
            print_json(RulesEditDocument.of(done, named_by, remarks, orders.imported, *reloaded, dry_run=dry_run))
    if orders.dry_run and done.changed:
        raise typer.Exit(ExitCode.DRIFT)


def _apply(chosen: Options, done: "Edited", orders: _Orders, answer: "Callable[[RunDocument], None]") -> None:
    """Apply the edited settings. When that fails, the edit stays, and the error says so."""
    try:
        stack.apply_settings(chosen, lock_wait=orders.lock_wait, format_=orders.format_, answer=answer)
    except OutputError:
        raise
    except FirewallError as error:
        error.context = (*error.context, f"The rules are saved in {done.path}, and not applied.")
        raise
