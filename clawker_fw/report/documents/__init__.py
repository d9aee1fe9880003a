"""The JSON answers: a dataclass for each, and for each of its parts.

`text` writes them, and `devkit.answer_schemas` their schemas, which are published in `docs/schemas/`. Both follow
from the fields; the docstring of a field is its description in the schema. A value of another room is a part as it
is, if its fields are what programs need. Nothing here is imported unless JSON is asked for.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import TypeAdapter, WithJsonSchema

from clawker_fw.model import Verdict

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time as RFC 3339 writes it."""

SiblingVerdict = Annotated[
    Verdict,
    WithJsonSchema(
        {
            "enum": [each.value for each in Verdict if each is not Verdict.OPEN],
            "description": "`unknown`: something could not be read. Never treat it as `current`.",
        }
    ),
]
"""The verdict on siblings: only a stack can be open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One whole answer."""

    schema: Literal[2] = 2
    """The version of this schema; a breaking change increments it."""


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}
"""What writes documents, once for each kind: `denials --follow` writes many."""


def text(document: object, *, indent: int | None = 2) -> str:
    """Return an answer, or a part of one, as JSON in printable ASCII, which needs no escapes to be shown."""
    kind = type(document)
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    values = _ADAPTERS[kind].dump_python(document, mode="json", by_alias=True)
    return json.dumps(values, indent=indent).replace("\x7f", r"\u007f")  # the one that is ASCII and not printable
