"""The options before a command, and options that several commands share."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from clawker_fw.errors import SettingsError
from clawker_fw.report.log import LogFormat
from clawker_fw.settings.durations import LONGEST_DURATION, parse_duration, readable
from clawker_fw.settings.find import project_of, stack_of


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
    group: str | None = None

    @cached_property
    def base_project(self) -> str:
        """The project, from the options, else from the settings file."""
        return self.named_project or project_of(self.config)

    @cached_property
    def project(self) -> str:
        """The stack's name: the project, and the group if one is chosen."""
        return stack_of(self.base_project, self.group)

    @cached_property
    def overridden(self) -> str:
        """The project of the settings file, if an environment variable overrides it."""
        if not self.given.get("project", "--").startswith("CLAWKER_FW_"):
            return ""
        with suppress(SettingsError):  # a file that can't be read is reported by the command that needs it
            project = project_of(self.config, default="")
            return project if project != self.named_project else ""
        return ""

    @property
    def naming(self) -> Mapping[str, str]:
        """The options that another command needs for the same stack. Paths are absolute."""
        chosen = {
            "--config": self.config and str(self.config.absolute()),
            "--project": self.named_project,
            "--group": self.group,
            "--host": self.host,
            "--context": self.context,
            "--secrets": self.secrets and str(self.secrets.absolute()),
        }
        return {option: value for option, value in chosen.items() if value}


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


_LONGEST_PERIOD = 366 * 86400
"""In seconds. Older records of use are deleted (`go/internal/usage`)."""


def age(text: str) -> float:
    """Parse a duration, a date or a time, local without a zone, and return how many seconds ago it was."""
    try:
        seconds = time.time() - datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except ValueError:
        seconds = duration(text, _LONGEST_PERIOD)
    if seconds <= 0:
        raise typer.BadParameter(f"{text} is not in the past")
    if seconds > _LONGEST_PERIOD:
        raise typer.BadParameter("at most 366d are known")
    return seconds


def duration(text: str, longest: float = LONGEST_DURATION) -> float:
    """Parse a duration from the command line, in seconds."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if seconds > longest:
        raise typer.BadParameter(f"a duration is at most {readable(longest)}")
    return seconds


def unparsed(text: str) -> Any:  # noqa: ANN401 - the type of what the option's parser returns
    """Return an option's default as a user writes it. Typer passes it to the option's parser."""
    return text


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
