"""The JSON Schema of the settings file, with which editors complete settings and mark mistakes.

pydantic knows the keys and limits, and fields have docstrings; here is how values may be written. Only the program
knows what the fields of a rule require of each other. An editor reads YAML 1.2, where `yes` is a word.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from clawker_fw.report.documents.schemas import describe
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol
from clawker_fw.rules.schema import ALIASES
from clawker_fw.settings import preset as presets
from clawker_fw.settings.find import FILE_NAME, PROJECT_NAME
from clawker_fw.settings.model import GroupSettings, Settings

REPOSITORY = Path(__file__).resolve().parent.parent

Schema = dict[str, Any]

_IMAGE: Schema = {"pattern": r"^(bundled|[a-zA-Z0-9][\w.:/-]*@sha256:[0-9a-f]{64})$"}
_DURATION: Schema = {"type": ["number", "string"], "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)?\s*$"}
_WRITTEN: dict[str, Schema] = {
    "project": {"pattern": f"^{PROJECT_NAME}$"},
    "envoy": _IMAGE,
    "coredns": _IMAGE,
    "idle": _DURATION,
    "drain_timeout": _DURATION,
    "memory": {"type": ["integer", "string"], "pattern": r"^\s*([0-9]+(\.[0-9]+)?\s*(KiB|MiB|GiB)|[0-9]+)\s*$"},
    "dst": {"pattern": r"^\s*[^\s:*]+\s*$"},
    "proto": {"enum": [*Protocol, *ALIASES]},
    "port": {
        "type": ["integer", "string"],
        "minimum": 1,
        "maximum": HIGHEST_PORT,
        "pattern": "^[0-9]{1,5}-[0-9]{1,5}$",
    },
    "until": {"pattern": r"^\s*[0-9]{4}[0-9Ww-]*([Tt]|\s+)[0-9:.,]+\s*([Zz]|[+-][0-9:]+)\s*$"},
    "preset": {"enum": list(presets.names())},
}
"""How values are written, by key, where pydantic only knows what becomes of them."""

_ENTRY = {"presets": "preset", "never": "dst", "always": "dst"}
"""How an entry of a list may be written, as the value of a key: for promises, instead of a mapping."""

_KEPT = ("type", "enum", "const", "minimum", "maximum", "minLength", "maxLength", "required", "description")


def address() -> str:
    """Return the address of the newest schema, which knows the settings of every release."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    return f"{project['urls']['Repository']}/raw/main/docs/reference/settings.schema.json"


class _Generator(GenerateJsonSchema):
    """Describes each setting with the docstring of its field, for a group otherwise with that of the settings."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        made = super().model_schema(schema)
        if schema["cls"] is GroupSettings:
            describe(Settings, made["properties"])
        describe(schema["cls"], made["properties"])
        return made

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> Schema:
        made = super().dataclass_schema(schema)
        describe(schema["cls"], made["properties"])
        return made


def schema() -> Schema:
    """Return the schema of a settings file, which is also right for files that are included."""
    described = Settings.model_json_schema(schema_generator=_Generator)
    del described["required"]  # rules may be in another one
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": address(),
        **_value(described, described["$defs"]),
        "title": f"The settings of clawker-fw ({FILE_NAME})",
    }


def _value(form: Schema, definitions: Schema, key: str = "") -> Schema:
    """Return the schema of the value of a key, with what it refers to in place."""
    several = [each for each in form.get("anyOf", ()) if each.get("type") != "null"]
    if len(several) == 1:
        form = several.pop() | {name: value for name, value in form.items() if name != "anyOf"}
    if "$ref" in form:
        form = definitions[form["$ref"].rpartition("/")[2]] | form
    made = {name: form[name] for name in _KEPT if name in form} | _WRITTEN.get(key, {})
    if not isinstance(form.get("default"), dict | None):
        made["default"] = form["default"]
    if several:
        made["anyOf"] = [_value(each, definitions) for each in several]
    if "items" in form:
        entry = _value(form["items"], definitions)
        if key in _ENTRY:
            short = {"type": "string", **_WRITTEN[_ENTRY[key]]}
            entry = short if entry["type"] == "string" else {"anyOf": [short, entry]}
        made["items"] = entry
    if "properties" in form:
        required = form.get("required", ())
        made["additionalProperties"] = False
        made["properties"] = {
            name: _value(each, definitions, name)
            if name in required
            else _nullable(_value(each, definitions, name))
            for name, each in form["properties"].items()
        }
    elif "additionalProperties" in form:
        made["additionalProperties"] = _value(form["additionalProperties"], definitions)
    return made


def _nullable(form: Schema) -> Schema:
    """Return a schema that also accepts that there is no value, which is ignored."""
    if "anyOf" in form:
        return form | {"anyOf": [*form["anyOf"], {"type": "null"}]}
    kinds = form["type"] if isinstance(form["type"], list) else [form["type"]]
    return form | {"type": [*kinds, "null"]} | ({"enum": [*form["enum"], None]} if "enum" in form else {})


def text() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
