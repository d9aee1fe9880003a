"""The command that shows the settings as they are understood."""

from typing import Any

import typer

from clawker_fw.cli import given
from clawker_fw.cli.app import Panel, app
from clawker_fw.cli.comparing import print_json
from clawker_fw.cli.parameters import Format, FormatOption, Options


@app.command(rich_help_panel=Panel.RULES)
def config(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Show every setting, and where its value comes from.

    That is the default, a line of a file, an environment variable, or an option. No engine is asked.

    Example: clawker-fw config --format json | jq '.settings[] | select(.origin != "default")'
    """
    from clawker_fw.report import config as report

    chosen: Options = context.obj
    loaded = given.load(chosen)
    given.warn_of_project(chosen, loaded)
    values = report.values(given.written(chosen), loaded, _options(chosen))
    if format_ is Format.JSON:
        from clawker_fw.report.documents.config import ConfigDocument

        print_json(ConfigDocument.of(loaded, given.named_by(chosen, loaded), values))
    else:
        from clawker_fw.report import text

        text.console().print(report.report(loaded, given.named_by(chosen, loaded), values))


def _options(chosen: Options) -> dict[str, tuple[Any, str]]:
    """Return the settings that an option overrides: each with its value, and what gave it."""
    if not chosen.named_project:
        return {}
    return {"project": (chosen.named_project, chosen.given.get("project", "--project"))}
