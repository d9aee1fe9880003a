"""The options before a command, and the options that several commands share: names, help texts and checks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from clawker_fw.errors import FirewallError
from clawker_fw.report.commands import in_text
from clawker_fw.report.log import LogFormat
from clawker_fw.settings.durations import LONGEST_DURATION, parse_duration
from clawker_fw.settings.find import project_of


class Format(StrEnum):
    """The format of an answer."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True)
class Options:
    """The options before the command. `given` maps each to its origin: an option or an environment variable."""

    config: Path | None = None
    named_project: str | None = None
    host: str | None = None
    context: str | None = None
    log_format: LogFormat = LogFormat.TEXT
    secrets: Path | None = None
    given: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def project(self) -> str:
        """The stack's name: from the options, else from the settings file."""
        return self.named_project or project_of(self.config)

    @property
    def words(self) -> tuple[str, ...]:
        """The options that another command needs for the same stack. A path is absolute, for any folder."""
        chosen = {
            "--config": self.config and str(self.config.absolute()),
            "--project": self.named_project,
            "--host": self.host,
            "--context": self.context,
            "--secrets": self.secrets and str(self.secrets.absolute()),
        }
        return tuple(word for option, value in chosen.items() if value for word in (option, value))

    def named(self, text: str) -> str:
        """Return a text whose commands have the options for the same stack."""
        return in_text(text, self.words)

    def name_in(self, error: FirewallError) -> None:
        """Give the commands in an error the options for the same stack."""
        error.message, error.hint = self.named(error.message), self.named(error.hint)
        error.context = tuple(map(self.named, error.context))


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        envvar="CLAWKER_FW_FORMAT",
        metavar="text|json",
        help="The format of the answer on standard output. `--json` is short for `--format json`.",
    ),
]


class Agents(StrEnum):
    """Whether agents count for the verdict."""

    JUDGE = "judge"
    IGNORE = "ignore"


AgentsOption = Annotated[
    Agents,
    typer.Option(
        "--agents",
        metavar="judge|ignore",
        help="Whether an agent that has a way around the firewall makes the verdict `open`, or is left out.",
    ),
]


_LONGEST_PERIOD = 366
"""In days: what nobody has used for longer is forgotten (`go/internal/usage`)."""


def period(text: str) -> float:
    """Parse how long ago something begins, in seconds: days and weeks as well."""
    match = re.fullmatch(r"\s*(\d{1,4})\s*([dw])\s*", text)
    if match is None:
        return duration(text)
    days = int(match[1]) * {"d": 1, "w": 7}[match[2]]
    if not 0 < days <= _LONGEST_PERIOD:
        raise typer.BadParameter(f"at most {_LONGEST_PERIOD}d are known")
    return days * 86400.0


def duration(text: str) -> float:
    """Parse a duration from the command line, in seconds."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if seconds > LONGEST_DURATION:
        raise typer.BadParameter("a duration is at most 24h")
    return seconds


def unparsed(text: str) -> Any:  # noqa: ANN401 - the type of what the option's parser returns
    """Return an option's default as a user writes it. Typer gives it to the option's parser."""
    return text


RefusedSinceOption = Annotated[
    float | None,
    typer.Option(
        "--since",
        metavar="DURATION",
        parser=duration,
        help="Only what was refused in the last so many seconds, minutes or hours. E.g. 10m.",
    ),
]
TopOption = Annotated[
    int | None,
    typer.Option("--top", metavar="N", min=1, help="Only the N that happened most often, most often first."),
]

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would be done; exit 1 if anything would be.")
]
DiffOption = Annotated[
    bool, typer.Option("--diff", help="Also show what differs in the generated files, line by line.")
]
AdoptOption = Annotated[
    bool,
    typer.Option(
        "--adopt", help="Take over a stack that was made from another settings file, with other content."
    ),
]
WithoutSecretsOption = Annotated[
    bool,
    typer.Option(
        "--without-secrets",
        help="Go on without secrets that can't be obtained. Requests that need them are refused.",
    ),
]
LockOption = Annotated[
    float,
    typer.Option(
        "--lock-wait",
        metavar="DURATION",
        parser=duration,
        help="How long to wait for another run that is changing this stack. E.g. 30s.",
    ),
]
