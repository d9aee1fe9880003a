"""The answer of a command that fails before it has answered."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import WithJsonSchema

from clawker_fw.errors import ExitCode, FirewallError
from clawker_fw.report.documents import Document


@dataclass(frozen=True, slots=True)
class ErrorPart:
    """What happened, where, and what to do."""

    code: str
    """What happened, as a kebab-case word: the error codes are documented."""
    message: str
    """What happened, in a sentence."""
    context: tuple[str, ...]
    """Facts: a file and line, a name, or a program's last output."""
    hint: str | None
    """What to do; null if there is no advice."""
    exit_code: Annotated[
        int,
        WithJsonSchema({"enum": [each.value for each in ExitCode if each > ExitCode.DRIFT], "type": "integer"}),
    ]
    """The exit code of the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDocument(Document):
    """The answer of a command that fails before it has answered."""

    error: ErrorPart

    @classmethod
    def of(cls, error: FirewallError) -> "ErrorDocument":
        hint = error.hint or None
        return cls(error=ErrorPart(error.code, error.message, error.context, hint, error.exit_code))
