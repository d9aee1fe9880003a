"""The form of a rule in the settings, validated with pydantic.

The rest of the program uses the frozen `Rule` and never pydantic's `RuleEntry`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from clawker_fw.rules.destination import Destination, objection, parse_destination
from clawker_fw.rules.until import parse_until, written


class Protocol(StrEnum):
    """The protocol that an agent may use with a destination."""

    HTTPS = "https"
    HTTP = "http"

    @property
    def default_port(self) -> int:
        """The port of a rule without `port` (RFC 9110, section 4.2)."""
        return 443 if self is Protocol.HTTPS else 80


class Action(StrEnum):
    """What a rule does."""

    ALLOW = "allow"
    DENY = "deny"


ALIASES = {"tls": Protocol.HTTPS, "wss": Protocol.HTTPS, "ws": Protocol.HTTP}
"""Other words for a protocol. A WebSocket (RFC 6455) begins as a request, so it is told from HTTP nowhere."""

LATER_PROTOCOLS = ("tcp", "ssh", "udp")
LATER_FIELDS = ("as", "path_rules", "path_default", "insecure_skip_tls_verify")
"""What the language has room for, and what is not supported yet."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, in canonical form.

    A rule that allows has a protocol and a port. One that denies may have neither: without a protocol it is for
    all of them, and without a port for every port. `until` is the end of a rule in seconds since 1970, if it has
    one. `note` and `place`, where the rule was written, decide nothing, so equal rules may differ in them.
    """

    destination: Destination
    protocol: Protocol | None
    port: int | None
    allow_private: bool = False
    action: Action = Action.ALLOW
    until: int | None = None
    note: str = field(default="", compare=False)
    place: str = field(default="", compare=False)

    @property
    def denies(self) -> bool:
        """Whether it denies what it matches."""
        return self.action is Action.DENY

    @property
    def key(self) -> tuple[Protocol, int] | None:
        """The protocol and the port, if it is for one of each."""
        return (self.protocol, self.port) if self.protocol and self.port else None

    def matches(self, protocol: Protocol, port: int) -> bool:
        """Whether it is for connections with this protocol to this port."""
        return self.protocol in {None, protocol} and self.port in {None, port}

    def __str__(self) -> str:
        """Return the rule in one line: `https .example.org:443 until 2027-01-31T18:00:00Z`.

        Rules that are not equal have different lines.
        """
        words = ["deny"] if self.denies else []
        words += [
            self.protocol or "any",
            f"{self.destination}:{self.port}" if self.port else str(self.destination),
        ]
        words += ["private"] if self.allow_private else []
        words += ["until", written(self.until)] if self.until else []
        return " ".join(words)


def _checked(text: str) -> str:
    return str(parse_destination(text))


def _protocol(value: object) -> object:
    if value in LATER_PROTOCOLS:
        raise ValueError(f"`proto: {value}` is not supported yet; https and http are")
    return ALIASES.get(value, value) if isinstance(value, str) else value


class RuleEntry(BaseModel):
    """An entry of `rules`, as a user writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dst: Annotated[StrictStr, AfterValidator(_checked)] = Field(
        description="A host name, exactly; with a leading dot, that name and everything below it.",
    )
    proto: Annotated[Protocol, BeforeValidator(_protocol)] | None = Field(
        default=None,
        description="`https` (forwarded by SNI; `tls` and `wss` mean the same) or `http` (`ws` means the same). "
        "Default: https; of a rule that denies, every protocol.",
    )
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = Field(
        default=None,
        description="The port. Default: 443 for https, 80 for http; of a rule that denies, every port.",
    )
    action: Action = Field(
        default=Action.ALLOW,
        description="`allow` or `deny`. The most specific name decides, and `deny` before `allow`.",
    )
    allow_private: StrictBool = Field(
        default=False,
        description="Whether the name may resolve to private addresses.",
    )
    until: Annotated[datetime, BeforeValidator(parse_until)] | None = Field(
        default=None,
        description="When the rule ends, as a time with its zone (`2027-01-31T18:00:00Z`). Default: never.",
    )
    force: StrictBool = Field(
        default=False,
        description="Accept a `dst` that is `localhost`, a public suffix, or everything below one.",
    )
    note: StrictStr = Field(default="", max_length=200, description="What it is for, for people.")

    @model_validator(mode="before")
    @classmethod
    def _is_supported(cls, value: Any) -> Any:  # noqa: ANN401 - what a user has written, before it is checked
        later = next((name for name in LATER_FIELDS if isinstance(value, dict) and name in value), None)
        if later is not None:
            raise ValueError(f"`{later}` is not supported yet")
        return value

    @model_validator(mode="after")
    def _is_meant(self) -> Self:
        if self.action is Action.DENY:
            if self.allow_private:
                raise ValueError("a rule that denies can't have `allow_private`")
        elif not self.force and (reason := objection(self.destination)):
            raise ValueError(f"{self.dst!r} {reason}; to allow it anyway, add `force: true` to the rule")
        return self

    @property
    def destination(self) -> Destination:
        """The destination that `dst` names."""
        name = self.dst.removeprefix(".")
        return Destination(name, subtree=name != self.dst)

    def rule(self, place: str = "") -> Rule:
        """Return the canonical rule. `place` is where it was written."""
        protocol, port = self.proto, self.port
        if self.action is Action.ALLOW:
            protocol = protocol or Protocol.HTTPS
            port = port or protocol.default_port
        until = int(self.until.timestamp()) if self.until else None
        return Rule(self.destination, protocol, port, self.allow_private, self.action, until, self.note, place)
