"""The command that shows the settings as they are understood."""

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json, print_report


@app.command()
def config(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Show every setting, and where its value comes from.

    That is the default, a line of a file, an environment variable, or an option. It needs no Docker engine.

    Example: clawker-fw config --json | jq '.settings[] | select(.origin != "default")'
    """
    from clawker_fw.report import config as report

    chosen: Options = context.obj
    loaded = session.load(chosen)
    project = (chosen.named_project, chosen.given.get("project", "--project"))
    values = report.values(loaded, {"project": project} if chosen.named_project else {})
    answer = report.ConfigAnswer.of(loaded, loaded.named_by(chosen.given), values)
    if format_ is Format.JSON:
        print_json(answer)
    else:
        print_report(report.report(answer, loaded.places.get("rules", "")))
