"""The options of a watcher, whether it is started by hand or as a service, and what they require."""

import re
from typing import Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.parameters import Options, duration
from clawker_fw.errors import SettingsError, UsageError
from clawker_fw.watch.reactions import Heal, OnOpen

_NETWORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 1.0, 86400.0


def _interval(text: str) -> float:
    seconds = duration(text)
    if not _SHORTEST_INTERVAL <= seconds <= _LONGEST_INTERVAL:
        raise typer.BadParameter("an interval is from 1s to 24h")
    return seconds


def _checked_address(text: str | None) -> str | None:
    """Return an address of this machine in its usual form; anything else is a usage error."""
    if text is None:
        return None
    from clawker_fw.watch.address import parse_address

    try:
        return str(parse_address(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _checked_network(name: str | None) -> str | None:
    if name is not None and not _NETWORK.fullmatch(name):
        raise typer.BadParameter(f"{name!r} is not the name of a network")
    return name


HealOption = Annotated[
    Heal,
    typer.Option(
        "--heal",
        metavar="tamper|all|none",
        help="Which differences to close: changes made by hand (tamper), all, or none. "
        "With tamper, changed settings and upgrades wait for `run`.",
    ),
]
IntervalOption = Annotated[
    float,
    typer.Option(
        "--interval",
        metavar="DURATION",
        parser=_interval,
        help="How often to compare the stack when no event arrives, plus or minus 10 %.",
    ),
]
ListenOption = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="ADDRESS",
        callback=_checked_address,
        help="Serve /metrics and /health at 127.0.0.1:PORT, [::1]:PORT or unix:PATH.",
    ),
]
CheckOption = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="ADDRESS",
        callback=_checked_address,
        help="Watch nothing: ask the watcher that listens at ADDRESS whether its stack is current, and exit.",
    ),
]
OtelOption = Annotated[
    bool,
    typer.Option(
        "--otel",
        help="Also send decisions, drift, agents and metrics to the collector at `otel.endpoint`. "
        "Needs the extra: pip install 'clawker-fw[otel]'.",
    ),
]
OnOpenOption = Annotated[
    OnOpen,
    typer.Option(
        "--on-open",
        metavar="warn|detach|stop",
        help="What to do about an agent that has a way around the firewall: only report it (warn), also take it "
        "off the agent network (detach), or stop it.",
    ),
]
AttachOption = Annotated[
    str | None,
    typer.Option(
        "--attach",
        metavar="NETWORK",
        callback=_checked_network,
        help="Attach the containers on this internal network to the agent network, such as tasks of a service in "
        "a swarm.",
    ),
]


def require_otlp(chosen: Options) -> None:
    """Check that the settings name a collector, and that the extra is installed.

    Raises:
        SettingsError, UsageError: otherwise.
    """
    if session.load(chosen).settings.otel.endpoint is None:
        raise SettingsError(
            "no-endpoint",
            "`--otel` needs the setting `otel.endpoint`, which names the collector.",
            hint="Set it to HOST:PORT, or leave out `--otel`.",
        )
    try:
        import clawker_fw.watch.otlp  # noqa: F401 - only whether it can be imported
    except ModuleNotFoundError as error:
        hint = "Install them with `pip install 'clawker-fw[otel]'`, or leave out `--otel`."
        raise UsageError("extra-missing", "OpenTelemetry's libraries are not installed.", hint=hint) from error
