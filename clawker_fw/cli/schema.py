"""The command that prints the schemas of the JSON answers."""

from typing import Annotated

import typer

from clawker_fw.cli.app import app
from clawker_fw.report import terminal


@app.command(context_settings={"ignore_unknown_options": True})
def schema(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="Default: list the commands that have a schema.")
    ] = None,
) -> None:
    """Print the JSON Schema of a command's answer in JSON.

    Without COMMAND, it lists the commands that have such an answer, and `error`: the answer of each of them when
    it fails. It needs no settings and no engine.

    Example: clawker-fw schema rules list
    """
    from clawker_fw.report.documents import schemas

    if not command:
        terminal.answer("\n".join(schemas.ANSWERS))
        return
    name = " ".join(command)
    if name not in schemas.ANSWERS:
        raise typer.BadParameter(f"{name} has no answer in JSON; `clawker-fw schema` lists those that have one.")
    terminal.answer(schemas.text(name), verbatim=True)
