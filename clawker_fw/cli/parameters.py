"""The options before a command, and those that several commands have: how they read, and what they may be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from clawker_fw import settings_file


class Format(StrEnum):
    """How an answer, or a log record, is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True)
class Options:
    """The options before the command. `given` says by what each was given: an option's name or a variable's."""

    config: Path | None = None
    named_project: str | None = None
    host: str | None = None
    context: str | None = None
    log_format: Format = Format.TEXT
    debug: bool = False
    given: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def project(self) -> str:
        """Which stack: the one that is named, else the one that the settings file is for."""
        return self.named_project or settings_file.project(self.config)


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        envvar="CLAWKER_FW_FORMAT",
        metavar="text|json",
        help="How the answer on standard output is written.",
    ),
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
AdoptOption = Annotated[
    bool,
    typer.Option("--adopt", help="Take over a stack that was made from another settings file."),
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
