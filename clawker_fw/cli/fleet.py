"""The commands about several hosts.

A further command is registered on `fleet_app`, in a module of its own that the end of this one imports.
"""

import typer

from clawker_fw.cli.app import Commands, Panel, app

fleet_app = typer.Typer(
    cls=Commands,
    name="fleet",
    help="Keep several hosts current.",
    rich_markup_mode=None,
)
app.add_typer(fleet_app, rich_help_panel=Panel.KEEPING)

import clawker_fw.cli.fleet_stack  # noqa: E402, F401 - it adds its command to the group
