"""The commands for observing before allowing: `rules observe` and `rules suggest`."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import editing, session
from clawker_fw.cli.editing import EditOrders, NoReloadOption
from clawker_fw.cli.parameters import DryRunOption, Format, FormatOption, LockOption, unparsed
from clawker_fw.cli.rules import rules_app

if TYPE_CHECKING:
    from clawker_fw.settings.edit.edits import EditResult, Written
    from clawker_fw.settings.edit.splice import Edit

_LONGEST = timedelta(hours=24)


@rules_app.command("observe")
def observe(
    context: typer.Context,
    time: Annotated[
        str | None, typer.Argument(metavar="TIME", help="Until when: 30m or 8h from now, or 2027-01-31T18:00:00Z.")
    ] = None,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="End it now.")] = False,
    no_reload: NoReloadOption = False,
    dry_run: DryRunOption = False,
    lock_wait: LockOption = unparsed(editing.LOCK_WAIT),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Let requests to public hosts pass that no rule names, until TIME, to find out which rules are needed.

    At most 24 hours. Every such request is on record as `observed`. The verdict is `observing` meanwhile, and
    `drift` exits with 1. Envoy and CoreDNS end it by themselves.

    Denied hosts, `never`, private addresses and everything that is not https or http stay refused. A host that a
    rule names gets only what the rules allow.

    Example: clawker-fw rules observe 30m
    """
    until = _until(time, stop=stop)
    before = session.load(context.obj).settings.observe
    orders = EditOrders(no_reload=no_reload, dry_run=dry_run, lock_wait=lock_wait, format_=format_)
    from clawker_fw.settings.edit.edits import observing

    def decide(_: "Sequence[Written]") -> "tuple[Edit, Sequence[EditResult]]":
        return observing(before.until if before else None, until)

    editing.edit_rules(context.obj, decide, orders)


def _until(time: str | None, *, stop: bool) -> datetime | None:
    from clawker_fw.rules.until import parse_until_from

    if (time is None) is not stop:
        raise typer.BadParameter("give a TIME, such as 30m, or --stop")
    if time is None:
        return None
    now = datetime.now(UTC)
    try:
        until = parse_until_from(time, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="TIME") from error
    if until is None or until > now + _LONGEST:
        raise typer.BadParameter("observing ends within 24 hours", param_hint="TIME")
    return until
