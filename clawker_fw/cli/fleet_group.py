"""The group of commands for several hosts."""

import typer

from clawker_fw.cli.app import Commands, Panel, app

fleet_app = typer.Typer(
    cls=Commands,
    name="fleet",
    help="Keep several hosts current, and see them side by side.",
    rich_markup_mode=None,
)
app.add_typer(fleet_app, rich_help_panel=Panel.KEEPING)
