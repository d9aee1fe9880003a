"""The commands that show rules: `rules list`, `check`, `unused` and `presets`. `editing` has those that edit."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import group
from clawker_fw.cli.parameters import Format, FormatOption, Options, age, unparsed
from clawker_fw.cli.session import print_json, print_report, print_table
from clawker_fw.errors import MistakesError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.model.usage import Usage

rules_app = group("rules", "List, check and edit the rules.")

SinceOption = Annotated[
    float,
    typer.Option(
        "--since",
        metavar="DURATION|TIME",
        parser=age,
        help="Show rules that were not used in the last DURATION, or since TIME: 30d, 4w, 2027-01-31.",
    ),
]


@rules_app.command("list")
def list_rules(
    context: typer.Context,
    *,
    used: Annotated[
        bool,
        typer.Option("--used", help="Also show when each rule was last used, and how much. Needs the engine."),
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show all rules in their canonical order, and where each is written. No engine is needed without `--used`.

    Example: clawker-fw rules list --json | jq -r '.rules[].dst'
    """
    loaded, now = session.load(context.obj), time.time()
    from clawker_fw.report import rules

    usage = _usage(context.obj) if used else None
    if format_ is Format.JSON:
        from clawker_fw.report.documents.rules import RulesListDocument

        print_json(RulesListDocument.of(loaded, loaded.named_by(context.obj.given), now, usage))
    elif usage:
        from clawker_fw.denials.usage import usage_of_rules
        from clawker_fw.report import usage as report

        usages = usage_of_rules(loaded.rules, usage)
        terminal.answer("\n".join(report.used_lines(usages, usage)))
        print_table(*report.rows(usages, now))
    elif loaded.rules.rules:
        terminal.answer(rules.summary(loaded))
        print_report(rules.RuleLines(loaded.rules, now))
    else:
        terminal.answer("There are no rules: everything is denied.")


@rules_app.command("check")
def check_rules(
    context: typer.Context,
    *,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Check the settings and all rules, with those of included files. Exit 0 when they are valid, else 3.

    All mistakes are shown; other commands show the first ten.

    Warns of rules that decide nothing: those that have ended, and those that other rules always deny. Where your
    file of secrets is, it must let each one go where a rule would send it; exit 6 if not. No engine is needed.

    Example: clawker-fw rules check
    """
    try:
        loaded = session.load(context.obj)
    except MistakesError as error:
        raise error.in_full() from error
    from clawker_fw.report import rules
    from clawker_fw.rules.review import review

    remarks = (*review(loaded.rules, time.time()), *session.check_secrets(context.obj, loaded))
    if format_ is Format.JSON:
        from clawker_fw.report.documents.rules import RulesCheckDocument

        print_json(RulesCheckDocument.of(loaded, loaded.named_by(context.obj.given), remarks))
    else:
        terminal.answer(f"valid  {rules.summary(loaded)}")
        for remark in remarks:
            terminal.answer(f"warning[{remark.code}]: {remark}.")


@rules_app.command("unused")
def unused_rules(
    context: typer.Context,
    *,
    since: SinceOption = unparsed("30d"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show rules that no agent has used, and how to remove each.

    A rule counts as unused only as far back as is known, and the answer says since when that is. A connection over
    https or http counts when it ends; how many are open is shown. clawker-fw's own probes are not counted.

    Example: clawker-fw rules unused --since 30d
    """
    loaded = session.load(context.obj)
    usage = _usage(context.obj)
    from clawker_fw.denials.usage import Period, usage_of_rules

    usages, within = usage_of_rules(loaded.rules, usage), Period.of(usage, since)
    if format_ is Format.JSON:
        from clawker_fw.report.documents.rules import RulesUnusedDocument

        print_json(RulesUnusedDocument.of(loaded, loaded.named_by(context.obj.given), usages, within, usage))
        return
    from clawker_fw.report import usage as report

    for line in report.unused_lines(usages, within, usage, loaded.source):
        terminal.answer(line)


@rules_app.command("presets")
def list_presets(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Show all of this preset. Default: list them."),
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
        presets = [preset(name) for name in dict.fromkeys(names or known())]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from error
    if format_ is Format.JSON:
        print_json(report.PresetsAnswer.of(presets))
    elif names:
        for number, shipped in enumerate(presets):
            for line in ([""] if number else []) + list(report.lines(shipped)):
                terminal.answer(line)
    else:
        terminal.answer(report.verdict(presets))
        print_table(*report.rows(presets))


def _usage(chosen: Options) -> "Usage":
    from clawker_fw.denials.usage import read

    return read(session.connect_reader(chosen), chosen.project)
