"""The command that prints a watcher as a systemd unit."""

import os
from typing import Annotated, cast

import typer
from typer.core import TyperGroup

from clawker_fw.cli import session
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Options
from clawker_fw.errors import RefusedError
from clawker_fw.report import terminal
from clawker_fw.report.log import LogFormat


@app.command(context_settings={"ignore_unknown_options": True})
def service(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WATCH-OPTIONS", help="The options of `watch`, such as `--heal all`."),
    ] = None,
    *,
    system: Annotated[
        bool,
        typer.Option(
            "--system/--user",
            help="Print a unit for the system, which runs as you, or for your own systemd (`systemctl --user`).",
        ),
    ] = True,
) -> None:
    """Print a systemd unit that runs `watch` with these options.

    Then: sudo systemctl daemon-reload; sudo systemctl enable --now clawker-fw

    Example: clawker-fw service --heal all | sudo tee /etc/systemd/system/clawker-fw.service
    """
    options = words or []
    program = context.find_root()
    watch = cast("TyperGroup", program.command).commands["watch"]
    watching = watch.make_context("watch", list(options), program).params
    interval, listen = watching["interval"], watching["listen"]
    text = _unit(context.obj, system=system, options=options, interval=interval, listen=listen)
    terminal.answer(text.removesuffix("\n"))


def _unit(chosen: Options, *, system: bool, options: list[str], interval: float, listen: str | None) -> str:
    from clawker_fw.private_files import make_private, state_folder
    from clawker_fw.reconcile import inputs
    from clawker_fw.watch.address import parse_address
    from clawker_fw.watch.service import service_variables, unit

    loaded = session.load(chosen)
    before = ["--project", chosen.base_project, "--log-format", LogFormat.JSON.value]
    if loaded.source:
        before += ["--config", str(loaded.source.absolute())]
    declared, _ = inputs.secrets(chosen, loaded)
    if declared:
        before += ["--secrets", str(declared.path)]
    for name, value in (("--group", chosen.group), ("--host", chosen.host), ("--context", chosen.context)):
        before += [name, value] if value else []
    state = state_folder().parent
    try:
        make_private(state)  # systemd makes only existing folders writable
    except OSError as error:
        raise RefusedError("unit-unwritable", f"{state} can't be created: {error.strerror}.") from error
    return unit(
        chosen.project,
        [*before, "watch", *options],
        interval,
        {
            **service_variables(os.environ),
            "XDG_STATE_HOME": str(state.parent),  # so that the service and `run` use the same certificates
        },
        system=system,
        socket=parse_address(listen).path if listen else None,
        state=state,
        user=os.geteuid(),
    )
