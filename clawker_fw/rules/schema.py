"""The form of a rule in the settings, validated with pydantic.

The rest of the program uses the frozen `Rule` and never pydantic's `RuleEntry`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from clawker_fw.rules.destination import Destination, objection, parse_destination


class Protocol(StrEnum):
    """The protocol that an agent may use with a destination."""

    HTTPS = "https"
    HTTP = "http"

    @property
    def default_port(self) -> int:
        """The port of a rule without `port` (RFC 9110, section 4.2)."""
        return 443 if self is Protocol.HTTPS else 80


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """One allowed destination, in canonical form."""

    destination: Destination
    protocol: Protocol
    port: int
    allow_private: bool


def _checked(text: str) -> str:
    return str(parse_destination(text))


class RuleEntry(BaseModel):
    """An entry of `rules`, as a user writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dst: Annotated[StrictStr, AfterValidator(_checked)] = Field(
        description="A host name, exactly; with a leading dot, that name and everything below it.",
    )
    proto: Protocol = Field(default=Protocol.HTTPS, description="`https` (forwarded by SNI) or `http`.")
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = Field(
        default=None,
        description="The port. Default: 443 for https, 80 for http.",
    )
    allow_private: StrictBool = Field(
        default=False,
        description="Whether the name may resolve to private addresses.",
    )
    force: StrictBool = Field(
        default=False,
        description="Accept a `dst` that is `localhost`, a public suffix, or everything below one.",
    )

    @model_validator(mode="after")
    def _is_meant(self) -> Self:
        if not self.force and (reason := objection(self._destination())):
            raise ValueError(f"{self.dst!r} {reason}; to allow it anyway, add `force: true` to the rule")
        return self

    def rule(self) -> Rule:
        """Return the canonical rule."""
        return Rule(self._destination(), self.proto, self.port or self.proto.default_port, self.allow_private)

    def _destination(self) -> Destination:
        name = self.dst.removeprefix(".")
        return Destination(name, subtree=name != self.dst)
