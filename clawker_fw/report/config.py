"""The answer of `config`, and its text form: every setting, its value, and where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml
from pydantic import NonNegativeInt
from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.report.documents import Document
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import Rows
from clawker_fw.settings.environment import ENVIRONMENT_PREFIX
from clawker_fw.settings.find import DEFAULT_PROJECT
from clawker_fw.settings.groups import GROUPS
from clawker_fw.settings.loaded import Loaded
from clawker_fw.settings.model import setting_keys

_ANY_WIDTH = 1_000_000


class ValueSource(StrEnum):
    """What gave a setting its value."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    OPTION = "option"


@dataclass(frozen=True, slots=True)
class Value:
    """A setting."""

    key: str
    value: Any
    """Null if it is chosen when the stack is made."""
    origin: ValueSource
    place: str | None
    """The file and line, the variable, or the option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigAnswer(Document):
    """The answer of `config`."""

    path: str | None
    """The settings file; null when only environment variables are used."""
    source: str
    """What chose it."""
    files: list[str]
    """The settings file, and those that it includes."""
    rules: NonNegativeInt
    settings: tuple[Value, ...]

    @classmethod
    def of(cls, loaded: Loaded, named_by: str, values: tuple[Value, ...]) -> "ConfigAnswer":
        return cls(
            path=str(loaded.source) if loaded.source else None,
            source=named_by,
            files=[str(path) for path in loaded.files],
            rules=len(loaded.rules.rules),
            settings=values,
        )


def values(loaded: Loaded, options: Mapping[str, tuple[Any, str]]) -> tuple[Value, ...]:
    """Return all settings except the rules. `options` are the command line's overrides."""
    settings = loaded.settings
    document = settings.model_dump(mode="json") | {
        "never": [entry.as_written for entry in settings.never],
        "always": [entry.as_written for entry in settings.always],
    }
    groups = (
        (Value(GROUPS, list(settings.groups), ValueSource.FILE, loaded.places[GROUPS]),) if settings.groups else ()
    )
    rows = (_value(key, _at(document, key), loaded, options) for key in setting_keys() if key != "rules")
    return (*rows, *groups)


def _at(document: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - any value of JSON
    value: Any = document
    for part in key.split("."):
        value = value[part]
    return value


def _value(key: str, value: object, loaded: Loaded, options: Mapping[str, tuple[Any, str]]) -> Value:
    if key in options:
        chosen, place = options[key]
        return Value(key, chosen, ValueSource.OPTION if place.startswith("-") else ValueSource.ENVIRONMENT, place)
    place = loaded.places.get(key, "")
    if not place:
        return Value(key, DEFAULT_PROJECT if key == "project" else value, ValueSource.DEFAULT, None)
    return Value(
        key, value, ValueSource.ENVIRONMENT if place.startswith(ENVIRONMENT_PREFIX) else ValueSource.FILE, place
    )


def report(answer: ConfigAnswer, rules_place: str) -> RenderableType:
    """Return the settings as text. `rules_place` is where the rules are written."""
    values = answer.settings
    rows = [[value.key, _written(value), value.place or value.origin.value] for value in values]
    rows.insert(0, ["rules", f"{answer.rules:,}", rules_place])
    path = answer.path or "only environment variables"
    own = sum(value.origin is not ValueSource.DEFAULT for value in values)
    return Group(
        Text(visible(f"{own:,} of {len(values):,} settings are not the default: {path} ({answer.source})")),
        Text(""),
        Rows(("setting", "value", "from"), rows),
    )


def _written(setting: Value) -> str:
    """Return a value as a person would write it. The stack chooses unset ones, except telemetry's."""
    value = setting.value
    if value is None:
        return "not set" if setting.key.startswith(("otel.", "observe")) else "chosen by the stack"
    if isinstance(value, list):
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=_ANY_WIDTH)
        return text.strip()[1:-1] or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
