"""The form of a rule in the settings, validated with pydantic. The rest of the program uses only `Rule`."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from ipaddress import AddressValueError, IPv4Address
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)

from clawker_fw.rules.destination import Destination, objection, parse_destination
from clawker_fw.rules.own_page import PAGE, is_ours
from clawker_fw.rules.path_words import InjectEntry, PathAction, PathEntry, long_form, not_empty, paths_of
from clawker_fw.rules.paths import Access, Paths
from clawker_fw.rules.ranges import is_private, is_special
from clawker_fw.rules.rule import HIGHEST_PORT, HOST, HOST_NAME, Protocol, Rule, RuleAction
from clawker_fw.rules.until import parse_until

ALIASES = {"tls": Protocol.HTTPS, "wss": Protocol.HTTPS, "ws": Protocol.HTTP}
"""Other names of a protocol. A WebSocket (RFC 6455) begins as an HTTP request, so no rule tells them apart."""

_WEBSOCKETS = "wss"

MOST_PORTS_OF_A_RULE = 1_000
MOST_PORTS_OF_A_UDP_RULE = 100
"""Lower, because each UDP port needs a listener and a cluster in Envoy."""


def _checked(text: str) -> str:
    address = text.strip()
    if address[-1:].isdigit():  # most names don't end in a digit: skip the attempt
        with suppress(AddressValueError):
            return str(IPv4Address(address))
    return str(_destination(text))


def _destination(text: str) -> Destination:
    destination = parse_destination(text)
    if is_ours(destination.name):
        raise ValueError(
            f"{text!r} can't be in a rule: {PAGE} is the page on which agents read what was refused to them"
        )
    return destination


def _name(text: str) -> str:
    destination = _destination(text)
    if destination.subtree:
        raise ValueError("`as` is one name, without a leading dot")
    return destination.name


def _protocol(value: object) -> object:
    return ALIASES.get(value, value) if isinstance(value, str) else value


def _ports(value: object) -> object:
    """Return a port, or the first and last port of `lo-hi`, as a pair."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= HIGHEST_PORT:
        return value, None
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value) if isinstance(value, str) else None
    if match and 1 <= int(match[1]) < int(match[2]) <= HIGHEST_PORT:
        return int(match[1]), int(match[2])
    raise ValueError(
        f"{value!r} is not a port: write a number from 1 to {HIGHEST_PORT}, or several as `8000-8010`"
    )


WrittenProtocol = Annotated[Protocol, BeforeValidator(_protocol)]
"""A protocol as users write it."""

WrittenPorts = Annotated[tuple[int, int | None], BeforeValidator(_ports)]
"""A port, or the first and last of several, as users write them."""

INSPECTION_FIELDS = ("inspect", "path_rules", "path_default", "insecure_skip_tls_verify", "git", "lfs", "inject")
"""The fields of a rule with TLS inspection."""


class RuleEntry(BaseModel):
    """An entry of `rules`, as a user writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    dst: Annotated[StrictStr, AfterValidator(_checked)]
    """A host name, exactly; with a leading dot, that name and everything below it. With `as`, an IPv4 address.
    `host` is the engine's own machine."""
    as_: Annotated[StrictStr, AfterValidator(_name)] | None = Field(default=None, alias="as")
    """The name that stands for an address: agents use names alone. Default for `dst: host`:
    `host.docker.internal`."""
    proto: WrittenProtocol | None = None
    """`https` (forwarded by SNI; `tls` means the same, and so does `wss`, which also allows WebSockets in TLS that
    is inspected), `http` (`ws` means the same), or `tcp`, `ssh` or `udp` (forwarded as they are, for an exact
    name). Default: https; of a rule that denies, every protocol."""
    port: WrittenPorts | None = None
    """The port; for tcp, ssh and udp also several, as `8000-8010`. Default: 443 for https, 80 for http, 22 for
    ssh; of a rule that denies, every port."""
    action: RuleAction = RuleAction.ALLOW
    """`allow` or `deny`. The most specific name decides, and `deny` before `allow`."""
    allow_private: StrictBool = False
    """Whether the name may resolve to private addresses."""
    until: Annotated[datetime, BeforeValidator(parse_until)] | None = None
    """When the rule ends, as a time with its zone (`2027-01-31T18:00:00Z`). Default: never."""
    force: StrictBool = False
    """Accept a `dst` that is `localhost`, a public suffix, or everything below one."""
    note: StrictStr = Field(default="", max_length=200)
    """What it is for, for people."""
    inspect: StrictBool | None = None
    """Whether TLS is inspected, which `path_rules` and `git` need. Default: if there are any."""
    path_rules: Annotated[tuple[PathEntry, ...], BeforeValidator(not_empty("path_rules"))] = ()
    """What is allowed or denied by path and method. The longest path decides, for all methods, then the first
    expression that matches."""
    path_default: PathAction | None = None
    """What happens to all other paths. Default: `deny` if any path or repository is allowed."""
    git: Annotated[Mapping[StrictStr, Access], BeforeValidator(not_empty("git"))] = {}
    """Git repositories of the host, as `{acme/widgets: read}`; `write` includes reading."""
    lfs: StrictBool = False
    """Whether large files of these repositories (Git LFS) may be transferred, in both directions."""
    inject: (
        Annotated[InjectEntry, BeforeValidator(long_form("secret"), json_schema_input_type=str | InjectEntry)]
        | None
    ) = None
    """A secret that is put into the requests which `path_rules` and `git` allow: its name in the user's own
    `secrets.yaml`, or `{secret: NAME, as: bearer|basic|raw}`. Agents never have it."""
    websocket: StrictBool = False
    """Whether requests that are allowed may become WebSockets, where TLS is inspected. Default: with `proto:
    wss`."""
    insecure_skip_tls_verify: StrictBool = False
    """Whether the host need not prove its name. Anybody on the way can read along."""

    @model_validator(mode="before")
    @classmethod
    def _says_websocket(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("proto") == _WEBSOCKETS:
            return {"websocket": True, **value}
        return value

    @model_validator(mode="after")
    def _is_meant(self) -> Self:
        if word := next((name for name in INSPECTION_FIELDS if name in self.model_fields_set), ""):
            self._require_inspectable(word)
        if self.action is RuleAction.DENY:
            if self._at_machine:
                raise ValueError(
                    f"`dst: {HOST}` is for rules that allow; to deny it, name `{HOST_NAME}` or its `as`"
                )
            if self.allow_private or self.as_ or self._address:
                raise ValueError(
                    "a rule that denies has a name as its `dst`, and neither `as` nor `allow_private`"
                )
            return self
        if self._at_machine:
            self._require_chosen()
        elif self.as_ or self._address:
            self._require_reachable()
        self._require_forwardable(self.proto or Protocol.HTTPS)
        if not self.force and (reason := objection(self.destination)):
            raise ValueError(f"{self.dst!r} {reason}; to allow it anyway, add `force: true` to the rule")
        return self

    def _require_inspectable(self, word: str) -> None:
        if self.action is RuleAction.DENY:
            raise ValueError(f"`{word}` is for rules that allow; a rule that denies denies the whole host")
        if self.proto not in {None, Protocol.HTTPS}:
            raise ValueError(f"`{word}` is for `proto: https`; nothing is inspected over {self.proto}")
        if self.as_ or self._address or self._at_machine:
            raise ValueError(f"`{word}` is for names; what comes to an address is forwarded as it is")
        other = next((field for field in INSPECTION_FIELDS if getattr(self, field)), "")
        if self.inspect is False and other:
            raise ValueError(
                f"`inspect: false` and `{other}` contradict each other: paths are in what is encrypted"
            )
        if self.inject and self.destination.subtree:
            raise ValueError(
                f"`inject` needs an exact name: an agent chooses the names below {self.destination.name}, and "
                f"`{self.inject.secret}` would go to each"
            )
        if self.inspect is None and not (self.path_rules or self.git or self.inject):
            raise ValueError(f"`{word}` needs `inspect: true`, `path_rules` or `git`")
        self._paths()

    def _paths(self) -> Paths | None:
        if not (self.inspect or self.path_rules or self.git or self.inject):
            return None
        verify, words = not self.insecure_skip_tls_verify, (self.path_rules, self.path_default, self.git)
        return paths_of(*words, lfs=self.lfs, verify=verify, inject=self.inject, websocket=self.websocket)

    def _require_forwardable(self, protocol: Protocol) -> None:
        first, last = self.port or (protocol.default_port, None)
        if first is None:
            raise ValueError(f"a rule with `proto: {protocol}` needs a `port`")
        if last:
            self._require_few_ports(protocol, first, last)
        if protocol.opaque and self.destination.subtree:
            raise ValueError(
                f"`proto: {protocol}` needs an exact name: nothing that is sent shows which name below "
                f"{self.destination.name} is meant"
            )

    def _require_few_ports(self, protocol: Protocol, first: int, last: int) -> None:
        if not protocol.opaque and not self.as_ and not self._at_machine:
            raise ValueError(f"several ports are for tcp, ssh and udp; write a rule for each port of {protocol}")
        most = MOST_PORTS_OF_A_UDP_RULE if protocol is Protocol.UDP else MOST_PORTS_OF_A_RULE
        if last - first >= most:
            raise ValueError(
                f"{first}-{last} are too many ports; {most:,} are the most of a rule with `proto: {protocol}`"
            )

    @property
    def _at_machine(self) -> bool:
        return self.dst == HOST

    def _require_chosen(self) -> None:
        """Check that a rule for the Docker host names one service, because nothing on it is allowed by default."""
        if self.proto is None or self.port is None:
            raise ValueError(
                f"`dst: {HOST}` is the Docker host, whose services are allowed one by one: add `proto` and `port`"
            )
        if not self.force and self.rule().reaches_engine:
            raise ValueError(
                "an engine usually listens on ports 2375 and 2376, and who reaches it is root on the machine; to "
                "allow it anyway, add `force: true` to the rule"
            )

    @property
    def _address(self) -> IPv4Address | None:
        if not self.dst[-1:].isdigit():
            return None
        try:
            return IPv4Address(self.dst)
        except AddressValueError:
            return None

    def _require_reachable(self) -> None:
        address = self._address
        if address is None:
            raise ValueError("`as` is for an IPv4 address as `dst`; a name needs none")
        if not self.as_:
            raise ValueError(
                f"{self.dst!r} is an address, and agents use names: add `as` with one that stands for it"
            )
        if is_special(address):
            raise ValueError(f"{self.dst!r} can never be reached (RFC 6890)")
        if is_private(address) and not self.allow_private:
            raise ValueError(f"{self.dst!r} is a private address; add `allow_private: true`")

    @property
    def destination(self) -> Destination:
        """The destination that agents use."""
        if self.as_ or self._at_machine:
            return Destination(self.as_ or HOST_NAME, subtree=False)
        name = self.dst.removeprefix(".")
        return Destination(name, subtree=name != self.dst)

    def rule(self, place: str = "") -> Rule:
        """Return the canonical rule. `place` is where it is written."""
        protocol, (port, last_port) = self.proto, self.port or (None, None)
        if self.action is RuleAction.ALLOW:
            protocol = protocol or Protocol.HTTPS
            port = port or protocol.default_port
        return Rule(
            self.destination,
            protocol,
            port,
            self.allow_private or self._at_machine,
            self.action,
            until=int(self.until.timestamp()) if self.until else None,
            last_port=last_port,
            host=self.dst if self.as_ or self._at_machine else "",
            paths=self._paths(),
            note=self.note,
            place=place,
        )


FIELDS = {field.alias or name: field for name, field in RuleEntry.model_fields.items()}
"""The fields of an entry, by their names in the settings."""


def mistake(details: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return pydantic's error in one rule as a clause."""
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    name = ".".join(map(str, details["loc"]))
    return f"`{name}`: {details['msg'][0].lower()}{details['msg'][1:]}, not {details['input']!r}"
