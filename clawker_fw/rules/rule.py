"""A rule, in canonical form. Nothing here says how users write one: see `schema.py`."""

from dataclasses import dataclass, field
from enum import StrEnum

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.paths import Paths
from clawker_fw.rules.until import rfc3339


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


HOST, HOST_NAME = "host", "host.docker.internal"
"""The `dst` that is the engine's own machine, and the name that agents use for it if there is no `as`."""

ENGINE_PORTS = frozenset({2375, 2376})
"""Where an engine usually listens (Docker's documentation, "Configure remote access for Docker daemon")."""

HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, in canonical form.

    A rule that allows has a protocol and a port, or ports up to `last_port`. One that denies may have neither:
    without a protocol it is for all of them, and without a port for every port. `until` is the end of a rule in
    seconds since 1970, if it has one. `host` is the address for which the name stands, if it is not looked up, or
    `HOST`. `paths` is what is allowed of the host, if its TLS is looked into. `note`, `place`, where the rule was
    written, and `preset`, the preset that it is of, decide nothing, so equal rules may differ in them.
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

    def covers(self, name: str) -> bool:
        """Whether it is for a name, by itself or as one of those below another."""
        own, subtree = self.destination
        return name == own or (subtree and name.endswith(f".{own}"))

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
        return machine if self.at_machine else self.host or name

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
