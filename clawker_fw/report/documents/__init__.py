"""The JSON answers: a dataclass for each, and for each of its parts.

`text` writes them and `schemas` describes them, with each field's docstring as its description. A value of another
package can be a part if programs need its fields.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import TypeAdapter, WithJsonSchema

from clawker_fw.errors import ExitCode, FirewallError
from clawker_fw.model.differences import Verdict
from clawker_fw.report.commands import named_in

SiblingVerdict = Annotated[
    Verdict,
    WithJsonSchema(
        {
            "enum": [verdict.value for verdict in Verdict if verdict is not Verdict.OPEN],
            "description": "`unknown`: something could not be read. Never treat it as `current`.",
        }
    ),
]
"""The verdict on siblings: only a stack can be open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One whole answer."""

    schema: Literal[1] = 1
    """The version of this schema; a breaking change increments it."""


def text(document: object) -> str:
    """Return an answer as JSON in printable ASCII, which needs no escapes to be shown."""
    return writer(type(document), indent=2)(document)


def values(document: object) -> dict[str, Any]:
    """Return the fields of an answer, with the options of this stack in their commands."""
    adapter: TypeAdapter[Any] = TypeAdapter(type(document))
    named_fields: Any = named_in(adapter.dump_python(document, mode="json", by_alias=True))
    return {key: value for key, value in named_fields.items() if key != "schema"}


def writer(kind: Any, *, indent: int | None = None) -> Callable[[object], str]:  # noqa: ANN401 - a class, or several
    """Return a writer for answers of a kind, or their parts; without an indent, in one line each."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def written(document: object) -> str:
        values = named_in(adapter.dump_python(document, mode="json", by_alias=True))
        return json.dumps(values, indent=indent).replace("\x7f", r"\u007f")  # ASCII, and not printable

    return written


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
        WithJsonSchema({"enum": [code.value for code in ExitCode if code > ExitCode.DRIFT], "type": "integer"}),
    ]
    """The exit code of the command."""

    @classmethod
    def of(cls, error: FirewallError) -> "ErrorPart":
        return cls(error.code, error.message, error.context, error.hint or None, error.exit_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDocument(Document):
    """The answer of a command that fails before it has answered."""

    error: ErrorPart

    @classmethod
    def of(cls, error: FirewallError) -> "ErrorDocument":
        return cls(error=ErrorPart.of(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class StacksDocument(Document):
    """The answer of a command about every stack of a settings file with groups."""

    stacks: list[dict[str, Any]]
    """An object for each stack: its `group`, null above the groups, and the fields of the command's answer
    about it, or those of `error`."""
