"""The command with which an engine, or a script, asks a watcher on the same machine for its health."""

from typing import Annotated

import typer

from clawker_fw.cli.app import Panel, app
from clawker_fw.cli.parameters import Agents, AgentsOption
from clawker_fw.cli.watch_options import checked_address
from clawker_fw.errors import ExitCode
from clawker_fw.report import terminal


@app.command(rich_help_panel=Panel.KEEPING)
def healthy(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", callback=checked_address, hidden=True)],
    *,
    agents: AgentsOption = Agents.JUDGE,
) -> None:
    """Ask a watcher whether its stack is current.

    ADDRESS is where it serves its pages: what its `--listen` says. Exit 0 if it has proven that lately, else 1.
    This is a container's health check: it asks the watcher and nobody else, and needs no settings and no engine.

    Example: clawker-fw healthy unix:/run/clawker-fw/watch.sock
    """
    from clawker_fw.watch.address import HEALTH, HEALTH_OF_SIBLINGS, parse_address
    from clawker_fw.watch.health import ask

    found = ask(parse_address(address), HEALTH if agents is Agents.JUDGE else HEALTH_OF_SIBLINGS)
    terminal.answer(found.text)
    if not found.healthy:
        raise typer.Exit(ExitCode.DRIFT)
