"""The settings of a stack, with types, bounds and defaults. pydantic validates them as parts of `model.py`."""

import re
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from clawker_fw.rules.destination import parse_destination
from clawker_fw.rules.path_words import parse_secret_name
from clawker_fw.rules.rule import HIGHEST_PORT, HOST, HOST_NAME
from clawker_fw.rules.until import parse_until
from clawker_fw.rules.upstream import Proxy
from clawker_fw.settings.durations import LONGEST_DURATION, parse_duration
from clawker_fw.settings.find import GROUP_FORM, GROUP_NAME, PROJECT_FORM, PROJECT_NAME

SHORTEST_SUBNET_PREFIX, LONGEST_SUBNET_PREFIX = 8, 25
SHORTEST_IDLE = 10
HIGHEST_LIMIT = 100_000
MOST_PROCESSORS = 128
LEAST_MEMORY, MOST_MEMORY = 64 << 20, 1 << 40
MOST_CONNECTIONS = 250_000
_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?[.])*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LONGEST_NAME = 253


def parse_memory(value: object) -> int:
    """Read a number of bytes, or a number with `KiB`, `MiB` or `GiB`. Raise ValueError otherwise."""
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB)\s*|\s*(\d+)\s*", str(value))
    if match is None or isinstance(value, bool):
        raise ValueError(
            f"{value!r} is not an amount of memory; write bytes, or a number with KiB, MiB or GiB (`2GiB`)"
        )
    return int(match[3]) if match[3] else round(float(match[1]) * units[match[2]])


def _image(text: str) -> str:
    if text == "bundled" or re.fullmatch(r"[a-zA-Z0-9][\w.:/-]*@sha256:[0-9a-f]{64}", text):
        return text
    raise ValueError(
        f"{text!r} is not pinned by digest; write `bundled`, or a reference with a digest (name@sha256:…)"
    )


def _host(text: str) -> str:
    if re.fullmatch(_HOST, text) and len(text) <= _LONGEST_NAME:
        return text.lower()
    raise ValueError(f"{text!r} is not a host name or an IPv4 address")


def _endpoint(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= HIGHEST_PORT:
        raise ValueError(f"{text!r} is not an endpoint; write HOST:PORT (`collector.example.com:4317`)")
    return f"{_host(host)}:{int(port)}"


def _proxy(text: str) -> str:
    match = re.fullmatch(r"(https?)://(?:([^/@]*)@)?([^/@:]+)(?::(\d{1,5}))?/?", text)
    if match is None:
        raise ValueError(f"{text!r} is not a proxy; write `http://HOST:PORT` or `https://HOST:PORT`")
    scheme, user, host, port = match.groups()
    if user is not None:
        raise ValueError("the proxy's password would be in this file; declare a secret, and name it in `auth`")
    if port is None or not 1 <= int(port) <= HIGHEST_PORT:
        raise ValueError(f"{text!r} needs a port, as in `{scheme}://{host}:3128`")
    return f"{scheme}://{HOST if host.lower() == HOST_NAME else _host(host)}:{int(port)}"


def _auth(text: str) -> str:
    if text.lower() in {"ntlm", "negotiate", "kerberos"}:
        raise ValueError(
            f"Envoy can't do {text}; run a helper that can, such as cntlm or px, on the Docker host, and write "
            "`proxy: http://host:PORT`"
        )
    return parse_secret_name(text)


def _subnet(value: object) -> IPv4Network:
    network = IPv4Network(str(value))
    if not SHORTEST_SUBNET_PREFIX <= network.prefixlen <= LONGEST_SUBNET_PREFIX:
        raise ValueError(f"{network} must have a prefix of /{SHORTEST_SUBNET_PREFIX} to /{LONGEST_SUBNET_PREFIX}")
    if not network.is_private:
        raise ValueError(f"{network} is public address space; agents need a private subnet (RFC 6890)")
    return network


def _project(name: str) -> str:
    if re.fullmatch(PROJECT_NAME, name):
        return name
    raise ValueError(f"{name!r} is not a valid project name: {PROJECT_FORM}")


def _group(name: str) -> str:
    if re.fullmatch(GROUP_NAME, name):
        return name
    raise ValueError(f"{name!r} is not a valid name of a group: {GROUP_FORM}")


Text = Annotated[str, Field(strict=True)]
GroupName = Annotated[Text, AfterValidator(_group)]
Project = Annotated[Text, AfterValidator(_project)]
Image = Annotated[Text, AfterValidator(_image)]
Duration = Annotated[float, Field(ge=0, le=LONGEST_DURATION), BeforeValidator(parse_duration)]
Idle = Annotated[float, Field(ge=SHORTEST_IDLE, le=LONGEST_DURATION), BeforeValidator(parse_duration)]
Time = Annotated[datetime, BeforeValidator(parse_until)]
Port = Annotated[int, Field(strict=True, ge=1, le=HIGHEST_PORT)]
Host = Annotated[Text, AfterValidator(_host)]
Endpoint = Annotated[Text, AfterValidator(_endpoint)]
ProxyAddress = Annotated[Text, AfterValidator(_proxy)]
Auth = Annotated[Text, AfterValidator(_auth)]
Exemption = Annotated[Text, AfterValidator(lambda text: str(parse_destination(text)))]
NamedPath = Annotated[Text, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Processors = Annotated[int, Field(strict=True, ge=1, le=MOST_PROCESSORS)]
Memory = Annotated[int, Field(ge=LEAST_MEMORY, le=MOST_MEMORY), BeforeValidator(parse_memory)]
Connections = Annotated[int, Field(strict=True, ge=1, le=MOST_CONNECTIONS)]
Limit = Annotated[int, Field(strict=True, ge=1, le=HIGHEST_LIMIT)]
NoticeCode = Annotated[str, Field(strict=True, pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]
Subnet = Annotated[IPv4Network, BeforeValidator(_subnet)]


class _Section:
    """Forbids unknown keys."""

    __slots__ = ()
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - as pydantic reads it


@dataclass(frozen=True, slots=True)
class NetworkSettings(_Section):
    """The agent network."""

    subnet: Subnet | None = None
    """The agent network's subnet, /8 to /25. By default, a free /23 is chosen once and kept."""


@dataclass(frozen=True, slots=True)
class ImageSettings(_Section):
    """The images of the siblings."""

    envoy: Image = "bundled"
    """`bundled`, or a registry reference pinned by digest (`name:tag@sha256:…`)."""
    coredns: Image = "bundled"
    """The same for the resolver."""


@dataclass(frozen=True, slots=True)
class OtelSettings(_Section):
    """Telemetry: what the siblings tell an OpenTelemetry collector, over mutual TLS."""

    endpoint: Endpoint | None = None
    """The collector's OTLP/gRPC receiver, `HOST:PORT`. By default, nothing is sent. Setting it for the first time,
    or removing it, replaces Envoy and CoreDNS."""
    server_name: Host | None = None
    """The name in the collector's certificate, if it is not the endpoint's host."""
    certs_dir: NamedPath | None = None
    """A folder with certificates of your own, relative to this file: `ca.crt`, and `envoy.crt`, `envoy.key`,
    `coredns.crt` and `coredns.key`, or `ca.key` to sign them with. By default, an authority of this project's own
    is made."""
    sample: Share = 1.0
    """The share of allowed connections, requests and queries that is sent, 0 to 1. What is refused is always
    sent."""
    infra_port: Port = 4319
    """The port at which Envoy passes on what CoreDNS sends. A change replaces Envoy and CoreDNS."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings(_Section):
    """The HTTP proxy of a network without another way out. Except for the two lists, a change replaces Envoy."""

    proxy: ProxyAddress | None = None
    """The proxy, `http://HOST:PORT` or `https://HOST:PORT`; the host `host` is the Docker host. By default, hosts
    are reached directly."""
    auth: Auth | None = None
    """A secret of your own `secrets.yaml` with the proxy's user and password, `user:password`. Its `hosts` must
    include the proxy's `HOST:PORT`."""
    ca_file: NamedPath | None = None
    """A file with the CAs (PEM) that may certify an `https://` proxy, relative to this file. By default, public
    ones."""
    no_proxy: tuple[Exemption, ...] = ()
    """Names that are reached directly: a name, or `.corp.example` with every name below it."""
    connect_ports: tuple[Port, ...] = (443,)
    """The ports that the proxy lets CONNECT reach. A rule that needs another one is a warning."""

    def __post_init__(self) -> None:
        """Refuse settings that would have no effect."""
        for name in ("auth", "ca_file", "no_proxy"):
            if self.proxy is None and getattr(self, name):
                raise ValueError(f"`upstream.{name}` has no effect without `upstream.proxy`")
        if self.ca_file and not (self.proxy or "").startswith("https:"):
            raise ValueError("`upstream.ca_file` is for a proxy with `https://`")

    def through(self) -> Proxy | None:
        """Return the proxy, or None if hosts are reached directly."""
        if self.proxy is None:
            return None
        scheme, _, place = self.proxy.partition("://")
        host, _, port = place.rpartition(":")
        exemptions = tuple(map(parse_destination, self.no_proxy))
        return Proxy(host, int(port), scheme == "https", self.auth or "", exemptions, self.connect_ports)


@dataclass(frozen=True, slots=True)
class ObserveSettings(_Section):
    """Observing: until a time, requests to public hosts that no rule names pass."""

    until: Time
    """When it ends, as in `2027-01-31T18:00:00Z`."""


@dataclass(frozen=True, slots=True)
class InspectionSettings(_Section):
    """Inspected TLS, for rules with `inspect`, `path_rules` or `git`."""

    ca_file: NamedPath | None = None
    """A file with further CAs (PEM) that may certify inspected hosts, relative to this file. Public
    ones always count. A change replaces Envoy."""


@dataclass(frozen=True, slots=True)
class LimitSettings(_Section):
    """What one agent, identified by its address, can use of the siblings."""

    connections: Limit = 1024
    """Connections and UDP sessions of one agent to Envoy at the same time."""
    connections_per_second: Limit = 250
    """New connections and UDP sessions of one agent per second, or twice as many at once, to Envoy and to CoreDNS.
    All agents together begin at most twice as many with hosts."""
    requests_per_second: Limit = 1000
    """HTTP requests of one agent per second, or a quarter of them at once: plain, and inspected.
    Further ones wait for a second."""
    datagrams_per_second: Limit = 10_000
    """UDP datagrams of one agent to Envoy per second, or a tenth of them at once."""
    queries_per_second: Limit = 1000
    """DNS queries of one agent per second."""
    resolver_connections: Limit = 32
    """Connections of one agent to CoreDNS at the same time, for DNS over TCP."""
    idle: Idle = 3600.0
    """How long an open connection, request or tunnel may send nothing in either direction, 10 seconds to one day.
    A change ends all open connections, after 5 s."""


@dataclass(frozen=True, slots=True)
class SiblingResources(_Section):
    """What Envoy or CoreDNS may use of the Docker host. Every change replaces it."""

    processors: Processors | None = None
    """Threads that forward, or that answer queries, each of which can use one processor. By default as many as the
    Docker host has, at most 8."""
    memory: Memory | None = None
    """The container's memory limit, as `2GiB`, `512MiB` or bytes. By default `2GiB` for Envoy and `512MiB` for
    CoreDNS; half of it on a machine with less than 3 GiB, and a quarter on one with less than 1.5 GiB."""
    connections: Connections | None = None
    """Connections of all agents together, for CoreDNS those over TCP. By default as many as the memory of Envoy,
    or half of CoreDNS's, has room for."""


@dataclass(frozen=True, slots=True)
class ResourceSettings(_Section):
    """What the siblings may use of the Docker host."""

    envoy: SiblingResources = SiblingResources()
    coredns: SiblingResources = SiblingResources()
