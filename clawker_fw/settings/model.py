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
NeverPromises = Annotated[tuple[Never, ...], Field(max_length=MOST_PROMISES)]
Always = Annotated[AlwaysEntry, BeforeValidator(long_form("dst"))]
AlwaysPromises = Annotated[tuple[Always, ...], Field(max_length=MOST_PROMISES)]


class GroupSettings(BaseModel):
    """What can be set for the stack of a group. Its values replace those above, and its lists add to them."""

    # A field without a docstring means the same as in `Settings`.

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    inherit: StrictBool = True
    """Whether the rules, presets and included files above the groups count as well."""
    rules: tuple[RuleEntry, ...] = ()
    """Further allowed destinations."""
    include: tuple[StrictStr, ...] = ()
    presets: tuple[PresetName, ...] = ()
    never: NeverPromises = ()
    always: AlwaysPromises = ()
    network: NetworkSettings = NetworkSettings()
    limits: LimitSettings = LimitSettings()
    resources: ResourceSettings = ResourceSettings()
    observe: ObserveSettings | None = None
    acknowledged: tuple[NoticeCode, ...] = ()


class Settings(BaseModel):
    """Everything that can be set."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    rules: tuple[RuleEntry, ...]
    """The allowed destinations. This setting is required; `[]` denies everything."""
    include: tuple[StrictStr, ...] = ()
    """Files with further rules, relative to this file. It has no environment variable."""
    presets: tuple[PresetName, ...] = ()
    """Presets whose rules are added, as `[pip, npm]`. A rule in `rules` replaces a preset's rule for the same
    name, protocol and port. `clawker-fw rules presets` shows them."""
    never: NeverPromises = ()
    """What no rule may allow, whoever writes it: names (`.corp.example`), or `{dst, proto, port}`. Rules that
    allow any of it are refused as a whole."""
    always: AlwaysPromises = ()
    """What the rules must allow at all times: names, or `{dst, proto, port}`. Rules that do not are refused as a
    whole."""
    observe: ObserveSettings | None = None
    """`{until: TIME}`: until then, requests to public hosts that no rule names pass, and are on record.
    `clawker-fw rules observe` writes it."""
    project: Project | None = None
    """The project of the stack, a part of every name. The default is `clawker`."""
    network: NetworkSettings = NetworkSettings()
    images: ImageSettings = ImageSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    otel: OtelSettings = OtelSettings()
    inspection: InspectionSettings = InspectionSettings()
    limits: LimitSettings = LimitSettings()
    resources: ResourceSettings = ResourceSettings()
    drain_timeout: Duration = 30.0
    """How long open connections may continue after Envoy has been replaced, e.g. `30s`."""
    acknowledged: tuple[NoticeCode, ...] = ()
    """Codes of notices that you know of, as `[host-hears-agents]`. Only `doctor` shows them to people; answers in
    JSON have them all."""
    groups: dict[GroupName, GroupSettings] = Field(default_factory=dict, max_length=MOST_GROUPS)
    """Groups of agents, each with a stack of its own called `PROJECT-GROUP`. They have no environment variable."""


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
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {name: field.annotation for name, field in section.model_fields.items()}
