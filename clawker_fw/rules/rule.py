"""A rule in canonical form. `schema.py` reads rules as users write them."""

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
        """The usual port, if there is one (RFC 9110, section 4.2; RFC 4253, 4.1)."""
        return _DEFAULT_PORTS.get(self)

    @property
    def transport(self) -> "Protocol":
        """The protocol on the wire: SSH is forwarded as plain TCP."""
        return Protocol.TCP if self is Protocol.SSH else self

    @property
    def opaque(self) -> bool:
        """Whether the traffic carries no host name, so that the name needs its own virtual address."""
        return self in _OPAQUE


_DEFAULT_PORTS = {Protocol.HTTPS: 443, Protocol.HTTP: 80, Protocol.SSH: 22}
_OPAQUE = frozenset({Protocol.TCP, Protocol.SSH, Protocol.UDP})


class RuleAction(StrEnum):
    """The effect of a rule."""

    ALLOW = "allow"
    DENY = "deny"


HOST, HOST_NAME = "host", "host.docker.internal"
"""The `dst` of the Docker host, and the name that agents use for it without `as`."""

ENGINE_PORTS = frozenset({2375, 2376})
"""The usual ports of a Docker engine (Docker's documentation, "Configure remote access for Docker daemon")."""

HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, in canonical form.

    An allow rule has a protocol and a port, or ports up to `last_port`. A deny rule without a protocol covers all
    protocols, and without a port all ports. `until` is the expiry in seconds since 1970. `host` is the fixed
    address of the name, or `HOST`. `paths` is set with TLS inspection. `proxied` (its hosts are reached through
    the upstream proxy), `note`, `place` (where the rule is written) and `preset` don't count when rules are
    compared.
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
    proxied: bool = field(default=False, compare=False)
    note: str = field(default="", compare=False)
    place: str = field(default="", compare=False)
    preset: str = field(default="", compare=False)

    def __hash__(self) -> int:
        """Hash only the destination, in which nearly all rules of a set differ."""
        return hash(self.destination)

    @property
    def located(self) -> str:
        """Where the rule is written, in parentheses with a leading space, or nothing."""
        return f" ({self.place})" if self.place else ""

    @property
    def denies(self) -> bool:
        """Whether it denies what it matches."""
        return self.action is RuleAction.DENY

    @property
    def opaque(self) -> bool:
        """Whether it forwards traffic as it is, so that the name needs its own virtual address."""
        return not self.denies and (bool(self.host) or (self.protocol is not None and self.protocol.opaque))

    @property
    def transport(self) -> Protocol | None:
        """The transport of its connections on the wire; None covers every transport."""
        if self.protocol is None:
            return None
        at_address = self.host and not self.denies and self.protocol is not Protocol.UDP
        return Protocol.TCP if at_address else self.protocol.transport

    def covers(self, name: str) -> bool:
        """Whether it covers a name, exactly or by its subtree."""
        own, subtree = self.destination
        return name == own or (subtree and name.endswith(f".{own}"))

    @property
    def at_machine(self) -> bool:
        """Whether its name stands for the Docker host."""
        return self.host == HOST

    @property
    def reaches_engine(self) -> bool:
        """Whether it allows a port of the Docker host on which the engine may listen."""
        return self.at_machine and not ENGINE_PORTS.isdisjoint(self.ports)

    def leads_to(self, name: str, machine: str) -> str:
        """Return the fixed address of a name, or the name itself, which is resolved. `machine` is the host's."""
        return machine if self.at_machine else self.host or name

    @property
    def ports(self) -> range:
        """Its ports; empty if it covers every port."""
        return range(self.port, (self.last_port or self.port) + 1) if self.port else range(0)

    @property
    def written_port(self) -> int | str | None:
        """The port or the ports as written in a rule."""
        return f"{self.port}-{self.last_port}" if self.last_port else self.port

    @property
    def keys(self) -> tuple[tuple[Protocol, int], ...]:
        """Its transport with each port."""
        transport = self.transport
        if transport is None or self.port is None:
            return ()
        if self.last_port is None:
            return ((transport, self.port),)
        return tuple((transport, port) for port in self.ports)

    def matches(self, transport: Protocol, port: int) -> bool:
        """Whether it covers connections with this transport to this port."""
        return self.transport in {None, transport} and (self.port is None or port in self.ports)

    def prevails_over(self, other: "Rule", port: int) -> bool:
        """Whether it denies, on a port, what another rule of the same name or a parent covers.

        A rule with a fixed address is TCP on the wire; a deny rule for its written protocol denies it as well.
        """
        spoken = other.protocol and other.protocol.transport
        return (
            self.denies
            and (self.port is None or port in self.ports)
            and self.transport in {None, other.transport, spoken}
        )

    def __str__(self) -> str:
        """Return one line, different for different rules: `https .example.org:443 until 2027-01-31T18:00:00Z`."""
        words = ["deny"] if self.denies else []
        ports = f":{self.written_port}" if self.port else ""
        words += [self.protocol or "any", str(self.destination) + ports]
        words += [f"at {self.host}"] if self.host else []
        words += ["private"] if self.allow_private and not self.at_machine else []
        words += [str(self.paths)] if self.paths else []
        words += [] if self.until is None else ["until", rfc3339(self.until)]
        return " ".join(words)
