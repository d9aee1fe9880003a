"""The JSON Schema of the settings file, with which editors complete settings and mark mistakes while one types.

pydantic knows the keys, limits and descriptions. What is added here is how values may be written. The schema
accepts what the program understands. It refuses mistakes in single values: only the program knows what the fields
of a rule require of each other. An editor reads YAML 1.2, where `yes` is a word: it marks what the program takes
for a boolean.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clawker_fw.rules.paths import Access
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol
from clawker_fw.rules.schema import ALIASES
from clawker_fw.settings import preset as presets
from clawker_fw.settings.durations import LONGEST_DURATION
from clawker_fw.settings.find import FILE_NAME, PROJECT_NAME
from clawker_fw.settings.model import Settings
from clawker_fw.settings.values import LEAST_MEMORY, MOST_MEMORY, SHORTEST_IDLE

REPOSITORY = Path(__file__).resolve().parent.parent
PLACE = Path("docs", "reference", "settings.schema.json")

_LETTER = r"[^\u0000-,./:-@\[-^`{-\u007f]"
"""What may be in a label: letters and digits of any script, hyphens and underscores."""
_NAME = rf"{_LETTER}+(\.{_LETTER}+)*\.?"
_ADDRESS = r"\s*[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?\s*"
_IMAGE = r"^(bundled|[a-zA-Z0-9][\w.:/-]*@sha256:[0-9a-f]{64})$"
_MEMORY = r"^\s*([0-9]+(\.[0-9]+)?\s*(KiB|MiB|GiB)|[0-9]+)\s*$"
_DURATION = r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)?\s*$"
_UNTIL = r"^\s*[0-9]{4}[0-9Ww-]*([Tt]|\s+)[0-9:.,]+\s*([Zz]|[+-][0-9:]+)\s*$"
_HOST = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?"

Schema = dict[str, Any]


def _duration(least: float) -> Schema:
    return {
        "anyOf": [
            {"type": "number", "minimum": least, "maximum": LONGEST_DURATION},
            {"type": "string", "pattern": _DURATION},
        ]
    }


_MEMORY_FORM: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": LEAST_MEMORY, "maximum": MOST_MEMORY},
        {"type": "string", "pattern": _MEMORY},
    ]
}

_DESTINATION: Schema = {"type": "string", "pattern": rf"^\.?{_NAME}$"}

_FORMS: dict[str, Schema] = {
    "include": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "rules.path_rules.path": {"type": "string", "pattern": "^[/~]"},
    "rules.path_rules.methods": {"type": "array", "items": {"type": "string", "pattern": "^[^a-z\\s]+$"}},
    "rules.git": {"type": "object", "additionalProperties": {"enum": [each.value for each in Access]}},
    "project": {"type": "string", "pattern": f"^{PROJECT_NAME}$"},
    "network.subnet": {
        "type": "string",
        "pattern": r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/([89]|1[0-9]|2[0-5]|255(\.[0-9]{1,3}){3})$",
    },
    "images.envoy": {"type": "string", "pattern": _IMAGE},
    "images.coredns": {"type": "string", "pattern": _IMAGE},
    "otel.endpoint": {"type": "string", "pattern": f"^{_HOST}:[0-9]+$"},
    "otel.server_name": {"type": "string", "pattern": f"^{_HOST}$"},
    "otel.certs_dir": {"type": "string", "minLength": 1},
    "limits.idle": _duration(SHORTEST_IDLE),
    "resources.envoy.memory": _MEMORY_FORM,
    "resources.coredns.memory": _MEMORY_FORM,
    "drain_timeout": _duration(0),
    "rules.dst": {"type": "string", "pattern": rf"^(\.?{_NAME}|{_ADDRESS})$"},
    "rules.as": {"type": "string", "pattern": f"^{_NAME}$"},
    "rules.proto": {"enum": [*Protocol, *ALIASES]},
    "rules.port": {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": HIGHEST_PORT},
            {"type": "string", "pattern": "^[0-9]{1,5}-[0-9]{1,5}$"},
        ]
    },
    "rules.until": {"type": "string", "pattern": _UNTIL},
    "presets.preset": {"enum": list(presets.names())},
    "presets.without": {"type": "array", "items": _DESTINATION},
}
_FORMS |= {
    f"{promises}.{name}": _FORMS[f"rules.{name}"] for promises in ("never", "always") for name in ("proto", "port")
}
_FORMS |= {f"{promises}.dst": _DESTINATION for promises in ("never", "always")}
"""How values are written, by key, where pydantic only knows what becomes of them."""


_SHORT: Mapping[str, Schema] = {
    "presets": _FORMS["presets.preset"],
    "never": _DESTINATION,
    "always": _DESTINATION,
}
"""How an entry of a list may be written instead of a mapping."""

_REQUIRED = frozenset(
    {"rules.dst", "rules.path_rules.path", "rules.inject.secret", "presets.preset", "always.dst"}
)
"""What must have a value wherever its section is."""


def repository() -> str:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["urls"]["Repository"])


def address() -> str:
    """Return the address at which the schema is published.

    It is that of the newest one, since settings are only ever added: it knows those of every release.
    """
    return f"{repository()}/raw/main/{PLACE.as_posix()}"


def schema() -> Schema:
    """Return the schema of a settings file, which is also right for files that are included."""
    described = Settings.model_json_schema()
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": address(),
        "title": f"The settings of clawker-fw ({FILE_NAME})",
        **_section(described, described["$defs"], ""),
    }


def _section(described: Schema, definitions: Schema, prefix: str) -> Schema:
    """Return the schema of a section. A key without a value is ignored there."""
    properties = {
        key: _value(field, definitions, f"{prefix}{key}") for key, field in described["properties"].items()
    }
    return {
        "description": described.get("description", ""),
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _value(field: Schema, definitions: Schema, key: str) -> Schema:
    """Return the schema of the value of a key, which may be missing."""
    made: Schema
    forms = [each for each in field.get("anyOf", ()) if each.get("type") != "null"] or [field]
    resolved = (definitions[each["$ref"].rpartition("/")[2]] if "$ref" in each else each for each in forms)
    *others, form = (each | {"enum": [each["const"]]} if "const" in each else each for each in resolved)
    if others:  # the short form of a section, and the section
        short: list[Schema] = [{"type": each["type"]} for each in others]
        made = {"anyOf": [*short, _section(form, definitions, f"{key}.") | {"required": form["required"]}]}
    elif "properties" in form:
        made = _section(form, definitions, f"{key}.")
    elif "$ref" in form.get("items", {}):
        entry = _section(definitions[form["items"]["$ref"].rpartition("/")[2]], definitions, f"{key}.")
        needed = sorted(name for name in entry["properties"] if f"{key}.{name}" in _REQUIRED)
        whole = {**entry, "required": needed}
        made = {"type": "array", "items": {"anyOf": [_SHORT[key], whole]} if key in _SHORT else whole}
    else:
        known = {"type", "enum", "minimum", "maximum", "maxLength"}
        made = dict(_FORMS.get(key) or {name: value for name, value in form.items() if name in known})
    if key in _REQUIRED:
        return made | {"description": field["description"]}
    described = {"description": field["description"]} if field.get("description") else {}
    return _nullable(made) | described


def _nullable(form: Schema) -> Schema:
    """Return a schema that also accepts that there is no value."""
    if "anyOf" in form:
        return {"anyOf": [*form["anyOf"], {"type": "null"}]}
    if "enum" in form:
        return {"enum": [*form["enum"], None]}
    return {**form, "type": [form["type"], "null"]}


def text() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
