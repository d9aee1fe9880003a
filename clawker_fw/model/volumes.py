"""Volumes on an engine."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A volume on the engine. `options` are those of its driver."""

    name: str
    driver: str
    options: Mapping[str, str]
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
