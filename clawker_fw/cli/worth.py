"""What the commands about the worth of rules have in common: they ask the engine, and change nothing."""

from typing import TYPE_CHECKING

import typer

from clawker_fw.cli import given
from clawker_fw.cli.parameters import Options
from clawker_fw.errors import RefusedError

if TYPE_CHECKING:
    from clawker_fw.denials.usage.comparing import Compared
    from clawker_fw.denials.usage.worth import Editing
    from clawker_fw.model import Usage
    from clawker_fw.rules.destination import Destination
    from clawker_fw.settings.loaded import Loaded


def known(chosen: Options) -> "Usage":
    """Return what agents have used, as the stack knows it."""
    from clawker_fw.cli import connection
    from clawker_fw.denials.usage.reading import read

    return read(connection.connect_reader(chosen), chosen.project)


def compared(chosen: Options, loaded: "Loaded", seconds: float) -> "Compared":
    """Return what the rules would change of what happened in the last so many seconds."""
    from clawker_fw.cli import connection
    from clawker_fw.denials.usage.comparing import compare

    return compare(connection.connect_reader(chosen), chosen.project, loaded.rules, seconds)


def editing(chosen: Options, loaded: "Loaded") -> "Editing":
    """Return what commands about these rules need."""
    import time

    from clawker_fw.denials.usage.worth import Editing

    explainer = given.explainer(chosen, loaded, time.time())
    return Editing(str(loaded.source or ""), chosen.words, explainer.simulator)


def subtree(text: str, loaded: "Loaded") -> "Destination":
    """Return the destination of a rule for a name and all below it.

    Raises:
        RefusedError: when there is no such rule.
    """
    from clawker_fw.rules.destination import parse_destination

    try:
        found = parse_destination(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=".NAME") from error
    if not found.subtree:
        raise typer.BadParameter(
            f"{text} is one name, and can't be narrowed; write .{found.name} for the rule with all below it",
            param_hint=".NAME",
        )
    if not any(each.destination == found and not each.denies for each in loaded.rules.rules):
        subtrees = sorted({str(each.destination) for each in loaded.rules.rules if each.destination.subtree})
        raise RefusedError(
            "no-such-rule",
            f"No rule allows {found}.",
            context=[f"rules for a name and all below it: {', '.join(subtrees) or 'none'}"],
            hint="`clawker-fw rules list` shows all rules.",
        )
    return found
