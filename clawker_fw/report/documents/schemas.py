"""The JSON schemas of the answers, from their dataclasses: a field's docstring describes it."""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from clawker_fw.report.certs import CertsDocument
from clawker_fw.report.checks import ConformanceAnswer, DoctorAnswer
from clawker_fw.report.config import ConfigAnswer
from clawker_fw.report.denials import DenialsDocument
from clawker_fw.report.documents import Document, ErrorDocument, StacksDocument
from clawker_fw.report.documents.rules import (
    RulesCheckDocument,
    RulesEditDocument,
    RulesListDocument,
    RulesUnusedDocument,
)
from clawker_fw.report.documents.run import DownDocument, DriftDocument, FlagsDocument, RunDocument
from clawker_fw.report.explaining import ExplainDocument
from clawker_fw.report.fleet import FleetStatusDocument
from clawker_fw.report.presets import PresetsAnswer
from clawker_fw.report.secrets import SecretsAnswer
from clawker_fw.report.status import StacksAnswer, StatusDocument
from clawker_fw.report.suggesting import SuggestDocument

ANSWERS: Mapping[str, type[Document]] = {
    "agent flags": FlagsDocument,
    **dict.fromkeys(("certs show", "certs rotate", "certs export"), CertsDocument),
    "config": ConfigAnswer,
    "conformance": ConformanceAnswer,
    "denials": DenialsDocument,
    "doctor": DoctorAnswer,
    "down": DownDocument,
    "drift": DriftDocument,
    "explain": ExplainDocument,
    "fleet status": FleetStatusDocument,
    **dict.fromkeys(
        ("rules allow", "rules deny", "rules observe", "rules remove", "rules suggest --write"), RulesEditDocument
    ),
    "rules check": RulesCheckDocument,
    "rules list": RulesListDocument,
    "rules presets": PresetsAnswer,
    "rules suggest": SuggestDocument,
    "rules unused": RulesUnusedDocument,
    **dict.fromkeys(("run", "reload"), RunDocument),
    **dict.fromkeys(("secrets list", "secrets check"), SecretsAnswer),
    "status": StatusDocument,
    "status --all": StacksAnswer,
    "groups": StacksDocument,
    "error": ErrorDocument,
}
"""The answers by command. Any command that fails answers with `error`."""


class _Generator(GenerateJsonSchema):
    """Describes each field with its docstring. All fields are always present, and no others."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        made = super().dataclass_schema(schema)
        for field in made["properties"].values():
            field.pop("title", None)
        describe(schema["cls"], made["properties"])
        return {**made, "additionalProperties": False, "required": list(made["properties"])}


def describe(kind: type, properties: dict[str, Any]) -> None:
    """Describe the properties of a class's schema with the docstrings of its fields, and of those of its bases."""
    for base in reversed(kind.__mro__[:-1]):
        for name, words in _meanings(base):
            if name in properties:
                properties[name]["description"] = words


def _meanings(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each documented field's name in JSON, and its docstring."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    for pair in pairwise(getattr(definition, "body", ())):
        match pair:
            case (ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words)))):
                yield name.rstrip("_"), " ".join(words.split())


def schema(command: str) -> dict[str, Any]:
    """Return the schema of a command's answer."""
    made = TypeAdapter(ANSWERS[command]).json_schema(mode="serialization", schema_generator=_Generator)
    who = "a command that fails before it has answered" if command == "error" else f"`clawker-fw {command}`"
    who = "a command about all groups" if command == "groups" else who
    title = f"The answer of {who} with `--format json`"
    return {"$schema": _Generator.schema_dialect, **made, "title": title}


def text(command: str) -> str:
    """Return the schema of a command's answer as text."""
    return json.dumps(schema(command), indent=2)
