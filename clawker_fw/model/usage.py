"""The use of rules, as the recorder counted it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True)
class Use:
    """The use of a name, protocol and port: first and last time, and how much.

    A `name` with a leading dot is a rule's subtree, for all names that the rule allowed. `protocol` is `https`,
    `http`, `tcp` or `udp`. `connections` have ended; `received` (from agents) and `sent` are their bytes.
    """

    protocol: Annotated[str, Field(pattern="^(https|http|tcp|udp)$")]
    name: str
    port: int
    first: float
    last: float
    connections: int
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class Usage:
    """All recorded uses. Only `lost` ones after `since` are missing.

    `identity` is the recorder's. `open` are the currently open connections by port; https and http ones are
    counted when they end.
    """

    identity: Annotated[str, Field(validation_alias="id")]
    since: float
    now: float
    uses: tuple[Use, ...] = ()
    lost: int = 0
    open: Mapping[str, int] = dataclasses.field(default_factory=dict)
