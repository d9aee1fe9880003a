"""The command that prints a watcher as a systemd unit."""

import os
from typing import Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import DrainOption, Options, unparsed, written
from clawker_fw.cli.watch_options import (
    AttachOption,
    HealOption,
    IntervalOption,
    ListenOption,
    OnOpenOption,
    OtelOption,
    require_otlp,
)
from clawker_fw.errors import RefusedError
from clawker_fw.report import terminal
from clawker_fw.report.log import LogFormat
from clawker_fw.watch.reactions import Heal, OnOpen


@app.command()
def service(
    context: typer.Context,
    *,
    system: Annotated[
        bool,
        typer.Option(
            "--system/--user",
            help="Print a unit for the system, which runs as you, or for your own systemd (`systemctl --user`).",
        ),
    ] = True,
    heal: HealOption = Heal.TAMPER,
    interval: IntervalOption = unparsed("30s"),
    listen: ListenOption = None,
    otel: OtelOption = False,
    on_open: OnOpenOption = OnOpen.WARN,
    attach: AttachOption = None,
    drain_timeout: DrainOption = None,
) -> None:
    """Print a systemd unit that runs `watch` with these options.

    Then: sudo systemctl daemon-reload; sudo systemctl enable --now clawker-fw

    Example: clawker-fw service | sudo tee /etc/systemd/system/clawker-fw.service
    """
    options = ["--heal", heal.value, "--interval", written(interval), "--on-open", on_open.value]
    if listen:
        options += ["--listen", listen]
    if attach:
        options += ["--attach", attach]
    if otel:
        require_otlp(context.obj)  # missing settings are better found now than by the service
        options += ["--otel"]
    if drain_timeout is not None:
        options += ["--drain-timeout", written(drain_timeout)]
    text = _unit(context.obj, system=system, options=options, interval=interval, listen=listen)
    terminal.answer(text.removesuffix("\n"))


def _unit(chosen: Options, *, system: bool, options: list[str], interval: float, listen: str | None) -> str:
    """Return a unit that runs the watcher with these options. The settings must be valid."""
    from clawker_fw.private_files import make_private, state_folder
    from clawker_fw.settings.environment import ENVIRONMENT_PREFIX, IGNORED_VARIABLES
    from clawker_fw.watch.address import parse_address
    from clawker_fw.watch.service import ServiceScope, Unit, service_variables

    loaded = session.read(chosen)
    records = chosen.log_format if chosen.log_format is not LogFormat.TEXT else LogFormat.LOGFMT
    before = ["--project", chosen.project, "--log-format", records.value]
    if loaded.source:
        before += ["--config", str(loaded.source.absolute())]
    known, _ = session.secrets(chosen, loaded)
    if known:
        before += ["--secrets", str(known.path)]
    for name, value in (("--host", chosen.host), ("--context", chosen.context)):
        before += [name, value] if value else []
    state = state_folder().parent
    try:
        make_private(state)  # systemd makes only existing folders writable
    except OSError as error:
        raise RefusedError("unit-unwritable", f"{state} can't be created: {error.strerror}.") from error
    unit = Unit(
        ServiceScope.SYSTEM if system else ServiceScope.USER,
        chosen.project,
        [*before, "watch", *options],
        interval,
        {
            **service_variables(os.environ, ENVIRONMENT_PREFIX, IGNORED_VARIABLES),
            "XDG_STATE_HOME": str(state.parent),  # so that the service and `run` use the same certificates
        },
        parse_address(listen).path if listen else None,
        state,
        os.geteuid(),
    )
    return unit.text()
