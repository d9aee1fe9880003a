"""The use of rules, as the recorder counted it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True)
class Use:
    """What is known of a name, protocol and port: when it was used first and last, and how much.

    A `name` with a dot before it is the subtree of a rule, and stands for all names that the rule has allowed.
    `protocol` is `https`, `http`, `tcp` or `udp`. `connections` are those that have ended, with the octets that
    were `received` from agents in them and `sent` to these.
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
    """All that is known. Nothing that was used after `since` is missing, but what was `lost`.

    `identity` is that of the recorder.
    `open` are the connections that are open now, by port: those over `https` and `http` count when they end.
    """

    identity: Annotated[str, Field(validation_alias="id")]
    since: float
    now: float
    uses: tuple[Use, ...] = ()
    lost: int = 0
    open: Mapping[str, int] = dataclasses.field(default_factory=dict)
