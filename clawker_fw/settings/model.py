"""The model of the settings file, frozen and validated with pydantic."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr

from clawker_fw.rules.path_words import long_form
from clawker_fw.rules.promise_words import AlwaysEntry, NeverEntry
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.groups import GROUPS
from clawker_fw.settings.preset import PresetName
from clawker_fw.settings.values import (
    Duration,
    GroupName,
    ImageSettings,
    InspectionSettings,
    LimitSettings,
    NetworkSettings,
    NoticeCode,
    ObserveSettings,
    OtelSettings,
    Project,
    ResourceSettings,
    UpstreamSettings,
)

MOST_PROMISES = 1_000
MOST_GROUPS = 100

Never = Annotated[NeverEntry, BeforeValidator(long_form("dst"))]
Always = Annotated[AlwaysEntry, BeforeValidator(long_form("dst"))]

_INCLUDE: Any = Field(
    default=(),
    description="Files with further rules, relative to this file. It has no environment variable.",
)
_PRESETS: Any = Field(
    default=(),
    description="Presets whose rules are added, as `[pip, npm]`. A rule in `rules` replaces a preset's rule "
    "for the same name, protocol and port. `clawker-fw rules presets` shows them.",
)
_NEVER: Any = Field(
    default=(),
    max_length=MOST_PROMISES,
    description="What no rule may allow, whoever writes it: names (`.corp.example`), or `{dst, proto, port}`. "
    "Rules that allow any of it are refused as a whole.",
)
_ALWAYS: Any = Field(
    default=(),
    max_length=MOST_PROMISES,
    description="What the rules must allow at all times: names, or `{dst, proto, port}`. "
    "Rules that do not are refused as a whole.",
)
_OBSERVE: Any = Field(
    default=None,
    description="`{until: TIME}`: until then, requests to public hosts that no rule names pass, and are on "
    "record. `clawker-fw rules observe` writes it.",
)
_ACKNOWLEDGED: Any = Field(
    default=(),
    description="Codes of notices that you know of, as `[host-hears-agents]`. Only `doctor` shows "
    "them to people; answers in JSON have them all.",
)


class GroupSettings(BaseModel):
    """What can be set for the stack of a group. Its values replace those above, and its lists add to them."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    inherit: StrictBool = Field(
        default=True, description="Whether the rules, presets and included files above the groups count as well."
    )
    rules: tuple[RuleEntry, ...] = Field(default=(), description="Further allowed destinations.")
    include: tuple[StrictStr, ...] = _INCLUDE
    presets: tuple[PresetName, ...] = _PRESETS
    never: tuple[Never, ...] = _NEVER
    always: tuple[Always, ...] = _ALWAYS
    network: NetworkSettings = NetworkSettings()
    limits: LimitSettings = LimitSettings()
    resources: ResourceSettings = ResourceSettings()
    observe: ObserveSettings | None = _OBSERVE
    acknowledged: tuple[NoticeCode, ...] = _ACKNOWLEDGED


class Settings(BaseModel):
    """Everything that can be set."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    rules: tuple[RuleEntry, ...] = Field(
        description="The allowed destinations. This setting is required; `[]` denies everything."
    )
    include: tuple[StrictStr, ...] = _INCLUDE
    presets: tuple[PresetName, ...] = _PRESETS
    never: tuple[Never, ...] = _NEVER
    always: tuple[Always, ...] = _ALWAYS
    observe: ObserveSettings | None = _OBSERVE
    project: Project | None = Field(
        default=None,
        description="The project of the stack, a part of every name. The default is `clawker`.",
    )
    network: NetworkSettings = NetworkSettings()
    images: ImageSettings = ImageSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    otel: OtelSettings = OtelSettings()
    inspection: InspectionSettings = InspectionSettings()
    limits: LimitSettings = LimitSettings()
    resources: ResourceSettings = ResourceSettings()
    drain_timeout: Duration = Field(
        default=30.0,
        description="How long open connections may continue after Envoy has been replaced, e.g. `30s`.",
    )
    acknowledged: tuple[NoticeCode, ...] = _ACKNOWLEDGED
    groups: dict[GroupName, GroupSettings] = Field(
        default_factory=dict,
        max_length=MOST_GROUPS,
        description="Groups of agents, each with a stack of its own called `PROJECT-GROUP`. They have no "
        "environment variable.",
    )


def setting_keys(section: Any = Settings, prefix: str = "") -> Iterator[str]:  # noqa: ANN401 - a class
    """Yield the dotted key of every setting of a stack."""
    for name, annotation in section_types(section).items():
        if name == GROUPS:
            continue
        if dataclasses.is_dataclass(annotation):
            yield from setting_keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def section_types(section: Any) -> dict[str, object]:  # noqa: ANN401 - a class
    """Return the names and types in the settings, or in one of their sections."""
    if dataclasses.is_dataclass(section):
        return {each.name: each.type for each in dataclasses.fields(section)}
    return {name: field.annotation for name, field in section.model_fields.items()}
