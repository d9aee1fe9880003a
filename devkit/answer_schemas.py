"""The schemas in `docs/schemas` of the JSON answers, which follow from the dataclasses in `report.documents`."""

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

from clawker_fw.report.documents.bundle import BundleDocument
from clawker_fw.report.documents.ca import AuthorityDocument
from clawker_fw.report.documents.certs import CertsDocument
from clawker_fw.report.documents.checks import ConformanceDocument, DoctorDocument
from clawker_fw.report.documents.config import ConfigDocument
from clawker_fw.report.documents.denials import DenialsDocument
from clawker_fw.report.documents.drift import DriftDocument
from clawker_fw.report.documents.explain import ExplainDocument
from clawker_fw.report.documents.flags import FlagsDocument
from clawker_fw.report.documents.fleet import FleetDenialsDocument, FleetStatusDocument
from clawker_fw.report.documents.presets import PresetsDocument
from clawker_fw.report.documents.ps import PsDocument
from clawker_fw.report.documents.rules import RulesCheckDocument, RulesEditDocument, RulesListDocument
from clawker_fw.report.documents.run import DownDocument, RunDocument
from clawker_fw.report.documents.secrets import SecretsDocument
from clawker_fw.report.documents.status import StatusDocument
from clawker_fw.report.documents.usage import RulesUnusedDocument

ANSWERS: Mapping[str, tuple[type, str]] = {
    "agent-flags": (FlagsDocument, "`clawker-fw agent flags`"),
    "bundle": (BundleDocument, "`clawker-fw bundle push`, `pull`, `verify` and `promote`"),
    "ca": (AuthorityDocument, "`clawker-fw ca show` and `rotate`"),
    "certs": (CertsDocument, "`clawker-fw certs show`, `rotate` and `export`"),
    "config": (ConfigDocument, "`clawker-fw config`"),
    "conformance": (ConformanceDocument, "`clawker-fw conformance`"),
    "denials": (DenialsDocument, "`clawker-fw denials`"),
    "doctor": (DoctorDocument, "`clawker-fw doctor`"),
    "down": (DownDocument, "`clawker-fw down`"),
    "drift": (DriftDocument, "`clawker-fw drift`"),
    "explain": (ExplainDocument, "`clawker-fw explain`"),
    "fleet-denials": (FleetDenialsDocument, "`clawker-fw fleet denials`"),
    "fleet-status": (FleetStatusDocument, "`clawker-fw fleet status`"),
    "ps": (PsDocument, "`clawker-fw ps`"),
    "rules-check": (RulesCheckDocument, "`clawker-fw rules check`"),
    "rules-edit": (RulesEditDocument, "`clawker-fw rules allow`, `deny`, `remove` and `import`"),
    "rules-list": (RulesListDocument, "`clawker-fw rules list`"),
    "rules-presets": (PresetsDocument, "`clawker-fw rules presets`"),
    "rules-unused": (RulesUnusedDocument, "`clawker-fw rules unused`"),
    "run": (RunDocument, "`clawker-fw run` and `reload`"),
    "secrets": (SecretsDocument, "`clawker-fw secrets list` and `check`"),
    "status": (StatusDocument, "`clawker-fw status`"),
}
"""The answers by the names of their schemas, and the commands that give them."""


class _Generator(GenerateJsonSchema):
    """Describes each field with its docstring. All fields are always there, and no others."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Return the schema of a dataclass."""
        made = super().dataclass_schema(schema)
        meanings = {name: words for kind in schema["cls"].__mro__[:-1] for name, words in _meanings(kind)}
        for name, field in made["properties"].items():
            field.pop("title", None)
            if name in meanings:
                field["description"] = meanings[name]
        return {**made, "additionalProperties": False, "required": list(made["properties"])}

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Return the schema of what may be null: in short where it has a simple type."""
        made = super().nullable_schema(schema)
        form, *others = made.get("anyOf", ({},))
        short = len(others) == 1 and isinstance(form.get("type"), str) and "enum" not in form
        return {**form, "type": [form["type"], "null"]} if short else made


def _meanings(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each field of a class that has a docstring, as it is called in JSON, with that docstring."""
    try:
        (found,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:  # it is not written as a class, but made of a table
        return
    for pair in pairwise(getattr(found, "body", ())):
        match pair:
            case (ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words)))):
                yield name.rstrip("_"), " ".join(words.split())


def schema(name: str) -> dict[str, Any]:
    """Return the schema of an answer."""
    kind, commands = ANSWERS[name]
    made = TypeAdapter(kind).json_schema(mode="serialization", schema_generator=_Generator)
    for each in made.get("$defs", {}).values():
        each.pop("title", None)
    title = f"The answer of {commands} with `--format json`"
    return {"$schema": _Generator.schema_dialect, **made, "title": title}


def text(name: str) -> str:
    """Return a schema as it is published."""
    return json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"
