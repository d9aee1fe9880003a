"""The commands that run a watcher as a systemd service."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import given
from clawker_fw.cli.app import Commands, Panel, app
from clawker_fw.cli.parameters import DrainOption, Options, unparsed, written
from clawker_fw.cli.watch_options import (
    AttachOption,
    BundleIntervalOption,
    HealOption,
    IntervalOption,
    ListenOption,
    OnOpenOption,
    OtelOption,
    require_otlp,
)
from clawker_fw.errors import ExitCode, RefusedError
from clawker_fw.report import terminal
from clawker_fw.watch.reactions import Heal, OnOpen

if TYPE_CHECKING:
    from clawker_fw.watch.service import Unit

service_app = typer.Typer(
    cls=Commands,
    name="service",
    help="Run `clawker-fw watch` as a systemd service.",
    rich_markup_mode=None,
)
app.add_typer(service_app, rich_help_panel=Panel.KEEPING)

SystemOption = Annotated[
    bool | None,
    typer.Option(
        "--system/--user",
        help="A system service, or a service of the user. Default: system for root, else user.",
    ),
]


@service_app.command("install")
def service_install(
    context: typer.Context,
    *,
    system: SystemOption = None,
    heal: HealOption = Heal.TAMPER,
    interval: IntervalOption = unparsed("30s"),
    bundle_interval: BundleIntervalOption = unparsed("5m"),
    listen: ListenOption = None,
    otel: OtelOption = False,
    on_open: OnOpenOption = OnOpen.WARN,
    attach: AttachOption = None,
    drain_timeout: DrainOption = None,
) -> None:
    """Start `clawker-fw watch` with these options, now and at boot.

    Writes a systemd unit. A user's service runs while that user is logged in; after `loginctl enable-linger` it
    also starts at boot.

    Example: clawker-fw service install --listen unix:/run/clawker-fw-clawker/watch.sock
    """
    from clawker_fw.watch import service

    options = ["--heal", heal.value, "--interval", written(interval), "--on-open", on_open.value]
    options += ["--bundle-interval", written(bundle_interval)]
    if listen:
        options += ["--listen", listen]
    if attach:
        options += ["--attach", attach]
    if otel:
        require_otlp(context.obj)  # missing settings are better found now than by the service
        options += ["--otel"]
    if drain_timeout is not None:
        options += ["--drain-timeout", written(drain_timeout)]
    unit = _unit(context.obj, system=system, options=options, interval=interval, listen=listen)
    started = service.install(unit)
    terminal.answer(f"Wrote {unit.path}.")
    if started:
        moment = "boot" if unit.scope is service.ServiceScope.SYSTEM else "login"
        terminal.answer(f"{unit.name} has been started, and starts again at every {moment}.")
    else:
        command = f"systemctl --{unit.scope} enable --now {unit.name}"
        terminal.answer(f"systemd is not running here, so nothing was started. Once it is: {command}")


@service_app.command("uninstall")
def service_uninstall(context: typer.Context, *, system: SystemOption = None) -> None:
    """Stop the service and remove its unit. The stack stays as it is.

    Example: clawker-fw service uninstall
    """
    from clawker_fw.watch import service

    unit = _named_unit(context.obj, system=system)
    terminal.answer(f"Removed {unit.path}." if service.uninstall(unit) else f"{unit.name} was not installed.")


@service_app.command("status")
def service_status(context: typer.Context, *, system: SystemOption = None) -> None:
    """Show whether the service is installed and running. Exit 0 when it is, else 1.

    Example: clawker-fw service status || clawker-fw service install
    """
    from clawker_fw.watch import service

    unit = _named_unit(context.obj, system=system)
    found = service.state(unit)
    active = found.active or "not running: systemd is not running here"
    terminal.answer(f"{unit.name}  {active}" if found.installed else f"{unit.name}  not installed")
    if not found.installed or found.active != "active":
        raise typer.Exit(ExitCode.DRIFT)


def _named_unit(chosen: Options, *, system: bool | None) -> "Unit":
    """Return a unit with the project's name only, for finding the installed one."""
    from clawker_fw.watch.service import ServiceScope, Unit, default_scope

    scope = default_scope() if system is None else ServiceScope.SYSTEM if system else ServiceScope.USER
    return Unit(scope, chosen.project, (), 0)


def _unit(
    chosen: Options, *, system: bool | None, options: list[str], interval: float, listen: str | None
) -> "Unit":
    """Return a unit that runs the watcher with these options. The settings must be valid."""
    import platformdirs

    from clawker_fw.settings.environment import ENVIRONMENT_PREFIX, IGNORED_VARIABLES
    from clawker_fw.watch import service
    from clawker_fw.watch.address import parse_address

    state = platformdirs.user_state_path("clawker-fw")
    loaded = given.load(chosen)
    if loaded.variable:
        raise RefusedError(
            "service-without-file",
            f"The settings come from the variable {loaded.variable}, and a service needs a file.",
            hint="Write them into a file, and name it with --config.",
        )
    given.warn_of_project(chosen, loaded)
    before = ["--project", chosen.project, "--log-format", chosen.log_format.value]
    if loaded.source:
        before += ["--config", str(loaded.source.absolute())]
    known, _ = given.secrets(chosen, loaded)
    if known:
        before += ["--secrets", str(known.path)]
    for name, value in (("--host", chosen.host), ("--context", chosen.context)):
        before += [name, value] if value else []
    return replace(
        _named_unit(chosen, system=system),
        arguments=[*before, "watch", *options],
        interval=interval,
        variables={
            **service.kept(os.environ, ENVIRONMENT_PREFIX, IGNORED_VARIABLES),
            # That of the user who installs it, so that `run` uses the same certificates.
            "XDG_STATE_HOME": str(state.parent),
        },
        socket=parse_address(listen).path if listen else None,
        state=state,
    )
