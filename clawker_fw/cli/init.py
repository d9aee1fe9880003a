"""The command that writes a settings file."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Options
from clawker_fw.report import log, terminal
from clawker_fw.settings.find import FILE_NAME


def _checked(names: list[str] | None) -> list[str]:
    from clawker_fw.settings.preset import preset

    try:
        for name in names or ():
            preset(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return names or []


@app.command()
def init(
    context: typer.Context,
    *,
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            callback=_checked,
            help="Allow what this tool or service needs, such as pip. Can be repeated. "
            "On a terminal, `init` asks if there is none.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented settings file.

    Example: clawker-fw init --preset claude-code --preset pip
    """
    from clawker_fw.settings.example import write_example
    from clawker_fw.settings.shell_proxy import offer

    chosen: Options = context.obj
    path = chosen.config or Path(FILE_NAME)
    asks = (
        not presets and sys.stdin.isatty() and terminal.understands_escapes(sys.stderr) and not log.for_programs()
    )
    named = write_example(path, _asked if asks else lambda: presets or (), overwrite=force)
    what = f"{path} with {'preset' if len(named) == 1 else 'presets'} {', '.join(named)}" if named else str(path)
    terminal.answer(f"Wrote {what}. Add rules for what agents may reach, then run `clawker-fw run`.")
    if sentence := offer(os.environ):
        terminal.answer(sentence)


def _asked() -> list[str]:
    """Show the presets, and return the user's choice. Asks again after an unknown name."""
    from clawker_fw.settings.preset import names, preset

    width = max(map(len, names()))
    for name in names():
        typer.echo(f"  {name.ljust(width)}  {preset(name).purpose}", err=True)
    question = "What do your agents use? Names, or Enter for none"
    named: list[str] = typer.prompt(
        question,
        default="",
        show_default=False,
        value_proc=lambda text: _checked(text.replace(",", " ").split()),
        err=True,
    )
    return named
