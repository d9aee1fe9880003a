"""The form of a rule in the settings, validated with pydantic.

The rest of the program uses the frozen `Rule` and never pydantic's `RuleEntry`.
"""

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv4Network
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

from clawker_fw.rules import blocks
from clawker_fw.rules.destination import Destination, objection, parse_destination
from clawker_fw.rules.path_words import InjectEntry, PathAction, PathEntry, inject_entry, paths_of
from clawker_fw.rules.paths import Access, Paths
from clawker_fw.rules.ranges import is_private, is_special
from clawker_fw.rules.until import parse_until, rfc3339


class Protocol(StrEnum):
    """The protocol that an agent may use with a destination."""

    HTTPS = "https"
    HTTP = "http"
    TCP = "tcp"
    SSH = "ssh"
    UDP = "udp"

    @property
    def default_port(self) -> int | None:
        """The port of a rule without `port`, if there is a usual one (RFC 9110, section 4.2; RFC 4253, 4.1)."""
        return _DEFAULT_PORTS.get(self)

    @property
    def transport(self) -> "Protocol":
        """What it is told apart by on the wire: SSH is TCP that is forwarded as it is."""
        return Protocol.TCP if self is Protocol.SSH else self

    @property
    def opaque(self) -> bool:
        """Whether nothing on the wire names the host, so that the name needs an address of its own."""
        return self in _OPAQUE


_DEFAULT_PORTS = {Protocol.HTTPS: 443, Protocol.HTTP: 80, Protocol.SSH: 22}
_OPAQUE = frozenset({Protocol.TCP, Protocol.SSH, Protocol.UDP})


class RuleAction(StrEnum):
    """What a rule does."""

    ALLOW = "allow"
    DENY = "deny"


ALIASES = {"tls": Protocol.HTTPS, "wss": Protocol.HTTPS, "ws": Protocol.HTTP}
"""Other words for a protocol. A WebSocket (RFC 6455) begins as a request, so it is told from HTTP nowhere."""

_WEBSOCKETS = "wss"

HOST, HOST_NAME = "host", "host.docker.internal"
"""The `dst` that is the engine's own machine, and the name that agents use for it if there is no `as`."""

ENGINE_PORTS = frozenset({2375, 2376})
"""Where an engine usually listens (Docker's documentation, "Configure remote access for Docker daemon")."""

HIGHEST_PORT = 65535
MOST_PORTS_OF_A_RULE = 1_000
MOST_PORTS_OF_A_UDP_RULE = 100
"""Fewer, because for Envoy each of them is a listener and a cluster."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, in canonical form.

    A rule that allows has a protocol and a port, or ports up to `last_port`. One that denies may have neither:
    without a protocol it is for all of them, and without a port for every port. `until` is the end of a rule in
    seconds since 1970, if it has one. `host` is the address for which the name stands, if it is not looked up, or
    a network of such addresses, which have names below it, or `HOST`. `paths` is what is allowed of the host, if
    its TLS is looked into. `note`, `place`, where the rule was written, and `preset`, the preset that it is of,
    decide nothing, so equal rules may differ in them.
    """

    destination: Destination
    protocol: Protocol | None
    port: int | None
    allow_private: bool = False
    action: RuleAction = RuleAction.ALLOW
    until: int | None = None
    last_port: int | None = None
    host: str = ""
    paths: Paths | None = None
    note: str = field(default="", compare=False)
    place: str = field(default="", compare=False)
    preset: str = field(default="", compare=False)

    def __hash__(self) -> int:
        """Return the hash of the destination, in which nearly all rules of a set differ."""
        return hash(self.destination)

    @property
    def located(self) -> str:
        """Where the rule was written, as it follows the rule in a sentence, or nothing."""
        return f" ({self.place})" if self.place else ""

    @property
    def denies(self) -> bool:
        """Whether it denies what it matches."""
        return self.action is RuleAction.DENY

    @property
    def opaque(self) -> bool:
        """Whether it forwards everything as it is: the name needs an address of its own."""
        return not self.denies and (bool(self.host) or (self.protocol is not None and self.protocol.opaque))

    @property
    def transport(self) -> Protocol | None:
        """What the connections that it is for are told apart by on the wire; None if it is for all of them."""
        if self.protocol is None:
            return None
        at_address = self.host and not self.denies and self.protocol is not Protocol.UDP
        return Protocol.TCP if at_address else self.protocol.transport

    @property
    def block(self) -> Mapping[str, str]:
        """The names of the addresses in its network, each with its address; empty if it has none."""
        return blocks.hosts(self.host, self.destination.name) if "/" in self.host else {}

    @property
    def names(self) -> Collection[str]:
        """The names that it is written for: its own, or those of the addresses in its network."""
        return self.block or (self.destination.name,)

    def covers(self, name: str) -> bool:
        """Whether it is for a name, by itself or as one of those below another."""
        return name in self.names or (self.destination.subtree and name.endswith(f".{self.destination.name}"))

    @property
    def at_machine(self) -> bool:
        """Whether its name stands for the engine's own machine."""
        return self.host == HOST

    @property
    def reaches_engine(self) -> bool:
        """Whether it is for a port of the engine's machine at which the engine itself may listen."""
        return self.at_machine and not ENGINE_PORTS.isdisjoint(self.ports)

    def leads_to(self, name: str, machine: str) -> str:
        """Return the address for which a name that it is for stands, or the name itself, which is looked up.

        `machine` is the address of the engine's machine.
        """
        return machine if self.at_machine else self.block.get(name) or self.host or name

    @property
    def ports(self) -> range:
        """The ports that it is for; none if it is for every port."""
        return range(self.port, (self.last_port or self.port) + 1) if self.port else range(0)

    @property
    def written_port(self) -> int | str | None:
        """The port as it is written in a rule, or the ports."""
        return f"{self.port}-{self.last_port}" if self.last_port else self.port

    @property
    def keys(self) -> tuple[tuple[Protocol, int], ...]:
        """What it allows: how it is told apart, with each port."""
        transport = self.transport
        if transport is None or self.port is None:
            return ()
        if self.last_port is None:
            return ((transport, self.port),)
        return tuple((transport, port) for port in self.ports)

    def matches(self, transport: Protocol, port: int) -> bool:
        """Whether it is for connections with this transport to this port."""
        return self.transport in {None, transport} and (self.port is None or port in self.ports)

    def prevails_over(self, other: "Rule", port: int) -> bool:
        """Whether it denies what another rule of the same name, or of one above it, is for on a port.

        What leads to an address is told apart by that alone, but a rule for its written protocol denies it, too.
        """
        spoken = other.protocol and other.protocol.transport
        return (
            self.denies
            and (self.port is None or port in self.ports)
            and self.transport in {None, other.transport, spoken}
        )

    def __str__(self) -> str:
        """Return the rule in one line: `https .example.org:443 until 2027-01-31T18:00:00Z`.

        Rules that are not equal have different lines.
        """
        words = ["deny"] if self.denies else []
        ports = f":{self.written_port}" if self.port else ""
        words += [self.protocol or "any", str(self.destination) + ports]
        words += [f"at {self.host}"] if self.host else []
        words += ["private"] if self.allow_private and not self.at_machine else []
        words += [str(self.paths)] if self.paths else []
        words += [] if self.until is None else ["until", rfc3339(self.until)]
        return " ".join(words)


def _checked(text: str) -> str:
    """Return a destination, an address or a network in canonical form."""
    address = text.strip()
    if address[-1:].isdigit():  # most names don't end in a digit, and need not be tried
        with suppress(AddressValueError):
            return str(IPv4Address(address))
        if block := blocks.parse_block(text):
            return str(block)
    return str(parse_destination(text))


def _name(text: str) -> str:
    found = parse_destination(text)
    if found.subtree:
        raise ValueError("`as` is one name, without a leading dot")
    return found.name


def _protocol(value: object) -> object:
    return ALIASES.get(value, value) if isinstance(value, str) else value


def _ports(value: object) -> object:
    """Return a port, or the first and the last one of `lo-hi`, each as a pair."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= HIGHEST_PORT:
        return value, None
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value) if isinstance(value, str) else None
    if match and 1 <= int(match[1]) < int(match[2]) <= HIGHEST_PORT:
        return int(match[1]), int(match[2])
    raise ValueError(
        f"{value!r} is not a port: write a number from 1 to {HIGHEST_PORT}, or several as `8000-8010`"
    )


WrittenProtocol = Annotated[Protocol, BeforeValidator(_protocol)]
"""A protocol as it is written."""

WrittenPorts = Annotated[tuple[int, int | None], BeforeValidator(_ports)]
"""A port, or the first and the last of several, as they are written."""

INSPECTION_FIELDS = ("inspect", "path_rules", "path_default", "insecure_skip_tls_verify", "git", "lfs", "inject")
"""The fields of a rule for a host whose TLS is looked into."""


class RuleEntry(BaseModel):
    """An entry of `rules`, as a user writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    dst: Annotated[StrictStr, AfterValidator(_checked)] = Field(
        description="A host name, exactly; with a leading dot, that name and everything below it. "
        "With `as`, an IPv4 address, or a network of at most 256 (`192.0.2.0/28`). "
        f"`{HOST}` is the engine's own machine.",
    )
    as_: Annotated[StrictStr, AfterValidator(_name)] | None = Field(
        default=None,
        alias="as",
        description="The name that stands for an address: agents use names alone. "
        "For a network, the addresses have names below it: 192.0.2.5 is `192-0-2-5.` before it. "
        f"Default for `dst: {HOST}`: `{HOST_NAME}`.",
    )
    proto: WrittenProtocol | None = Field(
        default=None,
        description="`https` (forwarded by SNI; `tls` means the same, and so does `wss`, which also allows "
        "WebSockets in TLS that is looked into), `http` (`ws` means the same), "
        "or `tcp`, `ssh` or `udp` (forwarded as they are, for an exact name). "
        "Default: https; of a rule that denies, every protocol.",
    )
    port: WrittenPorts | None = Field(
        default=None,
        description="The port; for tcp, ssh and udp also several, as `8000-8010`. "
        "Default: 443 for https, 80 for http, 22 for ssh; of a rule that denies, every port.",
    )
    action: RuleAction = Field(
        default=RuleAction.ALLOW,
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
    inspect: StrictBool | None = Field(
        default=None,
        description="Whether TLS is looked into, which `path_rules` and `git` need. Default: if there are any.",
    )
    path_rules: tuple[PathEntry, ...] = Field(
        default=(),
        description="What is allowed or denied by path and method. The longest path decides, then the first "
        "expression that matches.",
    )
    path_default: PathAction | None = Field(
        default=None,
        description="What happens to all other paths. Default: `deny` if any path or repository is allowed.",
    )
    git: Mapping[StrictStr, Access] = Field(
        default={},
        description="Git repositories of the host, as `{acme/widgets: read}`; `write` includes reading.",
    )
    lfs: StrictBool = Field(
        default=False,
        description="Whether large files of these repositories (Git LFS) may be transferred, in both directions.",
    )
    inject: (
        Annotated[InjectEntry, BeforeValidator(inject_entry, json_schema_input_type=str | InjectEntry)] | None
    ) = Field(
        default=None,
        description="A secret that is put into the requests which `path_rules` and `git` allow: its name in the "
        "user's own `secrets.yaml`, or `{secret: NAME, as: bearer|basic|raw}`. Agents never have it.",
    )
    websocket: StrictBool = Field(
        default=False,
        description="Whether requests that are allowed may become WebSockets, where TLS is looked into. "
        "Default: with `proto: wss`.",
    )
    insecure_skip_tls_verify: StrictBool = Field(
        default=False, description="Whether the host need not prove its name. Anybody on the way can read along."
    )

    @model_validator(mode="before")
    @classmethod
    def _says_websocket(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("proto") == _WEBSOCKETS:
            return {"websocket": True, **value}
        return value

    @model_validator(mode="after")
    def _is_meant(self) -> Self:
        if self._inspects:
            self._require_inspectable()
        if self.action is RuleAction.DENY:
            if self._at_machine:
                raise ValueError(
                    f"`dst: {HOST}` is for rules that allow; to deny it, name `{HOST_NAME}` or its `as`"
                )
            if self.allow_private or self.as_ or self._addresses:
                raise ValueError(
                    "a rule that denies has a name as its `dst`, and neither `as` nor `allow_private`"
                )
            return self
        if self._at_machine:
            self._require_chosen()
        elif self.as_ or self._addresses:
            self._require_reachable()
        self._require_forwardable(self.proto or Protocol.HTTPS)
        if not self.force and (reason := objection(self.destination)):
            raise ValueError(f"{self.dst!r} {reason}; to allow it anyway, add `force: true` to the rule")
        return self

    @property
    def _inspects(self) -> bool:
        """Whether anything is said for which TLS has to be looked into."""
        return not self.model_fields_set.isdisjoint(INSPECTION_FIELDS)

    def _require_inspectable(self) -> None:
        """Require of a rule with a word about what is in TLS that it is for TLS, and for names."""
        word = next(name for name in INSPECTION_FIELDS if name in self.model_fields_set)
        if self.action is RuleAction.DENY:
            raise ValueError(f"`{word}` is for rules that allow; a rule that denies denies the whole host")
        if self.proto not in {None, Protocol.HTTPS}:
            raise ValueError(f"`{word}` is for `proto: https`; nothing is looked into over {self.proto}")
        if self.as_ or self._addresses or self._at_machine:
            raise ValueError(f"`{word}` is for names; what comes to an address is forwarded as it is")
        if self.inspect is False and (
            other := next((each for each in self._paths_named if each != "inspect"), "")
        ):
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

    @property
    def _paths_named(self) -> list[str]:
        return [name for name in INSPECTION_FIELDS if getattr(self, name)]

    def _paths(self) -> Paths | None:
        """Return what is allowed of the host, if its TLS is looked into."""
        if not (self.inspect or self.path_rules or self.git or self.inject):
            return None
        verify = not self.insecure_skip_tls_verify
        return paths_of(
            self.path_rules,
            self.path_default,
            self.git,
            lfs=self.lfs,
            verify=verify,
            inject=self.inject,
            websocket=self.websocket,
        )

    def _require_forwardable(self, protocol: Protocol) -> None:
        """Require of a rule that allows what its protocol needs."""
        first, last = self.port or (protocol.default_port, None)
        if first is None:
            raise ValueError(f"a rule with `proto: {protocol}` needs a `port`")
        if last:
            self._require_few_ports(protocol, first, last)
        if protocol.opaque and self.destination.subtree:
            raise ValueError(
                f"`proto: {protocol}` needs an exact name: nothing that is sent tells which name below "
                f"{self.destination.name} is meant"
            )

    def _require_few_ports(self, protocol: Protocol, first: int, last: int) -> None:
        """Require of a rule for several ports that its protocol can have so many."""
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
        """Require of a rule for the engine's machine that it names one service: none is allowed by default."""
        if self.proto is None or self.port is None:
            raise ValueError(
                f"`dst: {HOST}` is the engine's own machine, whose services are allowed one by one: give `proto` "
                "and `port`"
            )
        if not self.force and self.rule().reaches_engine:
            raise ValueError(
                "an engine usually listens on ports 2375 and 2376, and who reaches it is root on the machine; to "
                "allow it anyway, add `force: true` to the rule"
            )

    @property
    def _addresses(self) -> IPv4Network | None:
        """The address or the network that it is for, if it is not for a name."""
        if not self.dst[-1:].isdigit():
            return None
        try:
            return IPv4Network(self.dst)
        except ValueError:
            return None

    def _require_reachable(self) -> None:
        """Require that an address, or each of a network, has a name, and can be reached."""
        addresses, several = self._addresses, "/" in self.dst
        if addresses is None and self.as_:
            raise ValueError("`as` is for an IPv4 address or network as `dst`; a name needs none")
        if addresses is None:
            return
        what = "a network" if several else "an address"
        if not self.as_:
            stands = "below which its addresses have names" if several else "that stands for it"
            raise ValueError(f"{self.dst!r} is {what}, and agents use names: add `as` with one {stands}")
        if several:
            blocks.require_room(self.as_)
        if is_special(addresses):
            raise ValueError(f"{self.dst!r} can never be reached (RFC 6890)")
        if is_private(addresses) and not self.allow_private:
            private = "has private addresses" if several else "is a private address"
            raise ValueError(f"{self.dst!r} {private}; add `allow_private: true`")

    @property
    def destination(self) -> Destination:
        """The destination that agents name."""
        if self.as_ or self._at_machine:
            return Destination(self.as_ or HOST_NAME, subtree=False)
        name = self.dst.removeprefix(".")
        return Destination(name, subtree=name != self.dst)

    def rule(self, place: str = "") -> Rule:
        """Return the canonical rule. `place` is where it was written."""
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
"""The fields of an entry, by the names with which they are written."""


def mistake(details: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return a mistake in one rule as a clause."""
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    name = ".".join(map(str, details["loc"]))
    return f"`{name}`: {details['msg'][0].lower()}{details['msg'][1:]}, not {details['input']!r}"
