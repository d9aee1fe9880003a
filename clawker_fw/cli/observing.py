"""The commands for observing before allowing: `rules observe` and `rules suggest`."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import editing, session
from clawker_fw.cli.editing import EditOrders, NoReloadOption
from clawker_fw.cli.parameters import DryRunOption, Format, FormatOption, LockOption, age, unparsed
from clawker_fw.cli.rules import rules_app
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.settings.edit.edits import EditResult, Written
    from clawker_fw.settings.edit.splice import Edit

_LONGEST = timedelta(hours=24)
_LOCK_SECONDS = 30.0


@rules_app.command("observe")
def observe(
    context: typer.Context,
    end: Annotated[
        str | None, typer.Argument(metavar="TIME", help="Until when: 30m or 8h from now, or 2027-01-31T18:00:00Z.")
    ] = None,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="End it now.")] = False,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(editing.LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Let requests without a rule pass for a time.

    Until TIME, at most 24 hours, https and http to public hosts pass that no rule names. Every such request is on
    record as `observed`. The verdict is `observing` meanwhile, and `drift` exits with 1. Envoy and CoreDNS end it.

    Denied hosts, `never`, private addresses and everything that is not https or http stay refused. A host that a
    rule names gets only what the rules allow.

    Example: clawker-fw rules observe 30m
    """
    until = _until(end, stop=stop)
    before = session.load(context.obj).settings.observe
    orders = EditOrders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    from clawker_fw.settings.edit.edits import observing

    def decide(_: "Sequence[Written]") -> "tuple[Edit, Sequence[EditResult]]":
        return observing(before.until if before else None, until)

    editing.edit_rules(context.obj, decide, orders)


def _until(end: str | None, *, stop: bool) -> datetime | None:
    from clawker_fw.rules.until import parse_until_from

    if (end is None) is not stop:
        raise typer.BadParameter("give a TIME, such as 30m, or --stop")
    if end is None:
        return None
    now = datetime.now(UTC)
    try:
        until = parse_until_from(end, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="TIME") from error
    if until is None or until > now + _LONGEST:
        raise typer.BadParameter("observing ends within 24 hours", param_hint="TIME")
    return until


@rules_app.command("suggest")
def suggest_rules(
    context: typer.Context,
    *,
    since: Annotated[
        float,
        typer.Option(
            "--since",
            metavar="DURATION|TIME",
            parser=age,
            help="What was wanted in the last DURATION, or since TIME.",
        ),
    ] = unparsed("1h"),
    write: Annotated[
        bool, typer.Option("--write", help="Add the presets and rules to the settings file, and apply them.")
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Suggest rules for what agents wanted.

    They are for what was refused, and for what passed while the stack was observed. Together they allow that.
    A preset is suggested if agents wanted all of its hosts. Rules that would allow more are only shown, and so are
    private names, public suffixes, and names in `never`.

    Read the names before you add them: agents choose what they ask for.

    Example: clawker-fw rules suggest --since 1h
    """
    from clawker_fw.cli.denials import answered
    from clawker_fw.denials.answer import Selection
    from clawker_fw.denials.suggesting import suggest
    from clawker_fw.report import suggesting as report
    from clawker_fw.settings import preset

    chosen, now = context.obj, time.time()
    explainer = session.explainer(chosen, session.load(chosen), now)
    suggestions = suggest(
        answered(chosen, since, Selection()).denials, explainer, map(preset.preset, preset.names())
    )
    if write:
        orders = EditOrders(no_reload=False, dry_run=False, lock_wait=_LOCK_SECONDS, format_=format_)
        editing.edit_rules(chosen, lambda entries: suggestions.added_to(entries, now), orders)
    elif format_ is Format.JSON:
        session.print_json(report.SuggestDocument.of(suggestions, now))
    else:
        for line in report.lines(suggestions, since, now):
            terminal.answer(line)
