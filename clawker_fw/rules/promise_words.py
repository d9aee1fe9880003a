"""The form of promises in the settings, validated with pydantic."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr, model_validator

from clawker_fw.rules.destination import EVERY_NAME, parse_destination
from clawker_fw.rules.promises import Promise, PromiseKind
from clawker_fw.rules.rule import HOST, HOST_NAME, Protocol, Rule, RuleAction
from clawker_fw.rules.schema import WrittenPorts, WrittenProtocol


def _name(text: str) -> str:
    if text.strip().lower() == HOST:
        raise ValueError(f"promises are about the names that agents use: write `{HOST_NAME}`, or what `as` names")
    return str(parse_destination(text))


class PromiseEntry(BaseModel):
    """What promises of both kinds have in common, as a user writes it."""

    # Built only as part of the settings, because building each model delays every command.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    dst: Annotated[StrictStr, AfterValidator(_name)] | None = None
    """A host name, exactly; with a leading dot, that name and everything below it. Default: every name."""
    proto: WrittenProtocol | None = None
    """The protocol. Default: every protocol."""
    port: WrittenPorts | None = None
    """The port, or several as `1-1023`. Default: every port."""
    note: StrictStr = Field(default="", max_length=200)
    """Why, for people."""

    @property
    def as_written(self) -> str | dict[str, Any]:
        """The shortest way to write it."""
        first, last = self.port or (None, None)
        port = f"{first}-{last}" if last else first
        fields = {"dst": self.dst, "proto": self.proto and self.proto.value, "port": port, "note": self.note}
        given = {name: value for name, value in fields.items() if value}
        return str(self.dst) if set(given) == {"dst"} else given


class NeverEntry(PromiseEntry):
    """An entry of `never`, as a user writes it."""

    @model_validator(mode="after")
    def _is_about_something(self) -> Self:
        if not (self.dst or self.proto or self.port):
            raise ValueError("`never` needs a `dst`, a `proto` or a `port`; to allow nothing, write `rules: []`")
        return self

    def promise(self, place: str = "") -> Promise:
        """Return the promise. `place` is where it is written."""
        first, last = self.port or (None, None)
        where = parse_destination(self.dst) if self.dst else EVERY_NAME
        rule = Rule(where, self.proto, first, action=RuleAction.DENY, last_port=last, note=self.note, place=place)
        return Promise(PromiseKind.NEVER, rule)


class AlwaysEntry(PromiseEntry):
    """An entry of `always`, as a user writes it."""

    dst: Annotated[StrictStr, AfterValidator(_name)]
    """A host name, exactly; with a leading dot, that name and everything below it."""
    proto: WrittenProtocol | None = None
    """The protocol. Default: https."""
    port: WrittenPorts | None = None
    """The port, or several as `8000-8010`. Default: 443 for https, 80 for http, 22 for ssh."""

    @model_validator(mode="after")
    def _has_a_port(self) -> Self:
        if self.port is None and self.proto and self.proto.default_port is None:
            raise ValueError(f"`always` with `proto: {self.proto}` needs a `port`")
        return self

    def promise(self, place: str = "") -> Promise:
        """Return the promise. `place` is where it is written."""
        protocol = self.proto or Protocol.HTTPS
        first, last = self.port or (protocol.default_port, None)
        rule = Rule(parse_destination(self.dst), protocol, first, last_port=last, note=self.note, place=place)
        return Promise(PromiseKind.ALWAYS, rule)
