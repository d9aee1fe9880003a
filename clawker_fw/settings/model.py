"""The model of the settings file, frozen and validated with pydantic."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from clawker_fw.rules.path_words import long_form
from clawker_fw.rules.promise_words import AlwaysEntry, NeverEntry
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.preset import PresetName
from clawker_fw.settings.values import (
    Duration,
    ImageSettings,
    InspectionSettings,
    LimitSettings,
    NetworkSettings,
    NoticeCode,
    OtelSettings,
    Project,
    ResourceSettings,
)

MOST_PROMISES = 1_000

Never = Annotated[NeverEntry, BeforeValidator(long_form("dst"))]
Always = Annotated[AlwaysEntry, BeforeValidator(long_form("dst"))]


class Settings(BaseModel):
    """Everything that can be set."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    rules: tuple[RuleEntry, ...] = Field(
        description="The allowed destinations. This setting is required; `[]` denies everything."
    )
    include: tuple[StrictStr, ...] = Field(
        default=(),
        description="Files with further rules, relative to this file. It has no environment variable.",
    )
    presets: tuple[PresetName, ...] = Field(
        default=(),
        description="Presets whose rules are added, as `[pip, npm]`. A rule in `rules` replaces a preset's rule "
        "for the same name, protocol and port. `clawker-fw rules presets` shows them.",
    )
    never: tuple[Never, ...] = Field(
        default=(),
        max_length=MOST_PROMISES,
        description="What no rule may allow, whoever writes it: names (`.corp.example`), or `{dst, proto, port}`. "
        "Rules that allow any of it are refused as a whole.",
    )
    always: tuple[Always, ...] = Field(
        default=(),
        max_length=MOST_PROMISES,
        description="What the rules must allow at all times: names, or `{dst, proto, port}`. "
        "Rules that do not are refused as a whole.",
    )
    project: Project | None = Field(
        default=None,
        description="The project of the stack, a part of every name. The default is `clawker`.",
    )
    network: NetworkSettings = NetworkSettings()
    images: ImageSettings = ImageSettings()
    otel: OtelSettings = OtelSettings()
    inspection: InspectionSettings = InspectionSettings()
    limits: LimitSettings = LimitSettings()
    resources: ResourceSettings = ResourceSettings()
    drain_timeout: Duration = Field(
        default=30.0,
        description="How long open connections may continue after Envoy has been replaced, e.g. `30s`.",
    )
    acknowledged: tuple[NoticeCode, ...] = Field(
        default=(),
        description="Codes of notices that you know of, as `[host-hears-agents]`. Only `doctor` shows "
        "them to people; answers in JSON have them all.",
    )


def setting_keys(section: Any = Settings, prefix: str = "") -> Iterator[str]:  # noqa: ANN401 - a class
    """Yield the dotted key of every setting."""
    for name, annotation in section_types(section).items():
        if dataclasses.is_dataclass(annotation):
            yield from setting_keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def section_types(section: Any) -> dict[str, object]:  # noqa: ANN401 - a class
    """Return the names and types in the settings, or in one of their sections."""
    if dataclasses.is_dataclass(section):
        return {each.name: each.type for each in dataclasses.fields(section)}
    return {name: field.annotation for name, field in section.model_fields.items()}
