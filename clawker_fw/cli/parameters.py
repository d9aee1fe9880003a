"""The options before a command, and those that several commands have: how they read, and what they may be."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How an answer, or a log record, is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True)
class Options:
    """The options before the command."""

    config: Path | None = None
    project: str = "clawker"
    host: str | None = None
    context: str | None = None
    log_format: Format = Format.TEXT
    debug: bool = False


FormatOption = Annotated[
    Format,
    typer.Option("--format", envvar="CLAWKER_FW_FORMAT", help="How the answer on standard output is written."),
]


def duration(text: str) -> float:
    """Read a duration of the command line, in seconds."""
    from clawker_fw.settings import LONGEST_DURATION, parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if seconds > LONGEST_DURATION:
        raise typer.BadParameter("a duration is at most 24h")
    return seconds


def written(seconds: float) -> str:
    """Return a duration as it can be given on a command line, to the millisecond."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


DrainOption = Annotated[
    float | None,
    typer.Option(
        "--drain-timeout",
        metavar="DURATION",
        parser=duration,
        help="How long open connections of a replaced Envoy may go on, instead of the setting. E.g. 5s, 2m.",
    ),
]
LockOption = Annotated[
    float,
    typer.Option(
        "--lock-wait",
        metavar="DURATION",
        parser=duration,
        help="How long to wait for another run that is at work on this stack. E.g. 30s.",
    ),
]
