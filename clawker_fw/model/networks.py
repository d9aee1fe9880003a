"""Networks to create, and networks and endpoints on an engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A bridge network to create. `gateway` is the bridge's own address, unless the options inhibit it."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    ip_range: IPv4Network
    internal: bool
    options: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network on the engine. `gateway` is the bridge's own address, or empty.

    `sources_checked` is whether the host drops packets with unanswerable sources (None: unknown). `unreadable` is
    why a network that is not ours could not be read, or empty.
    """

    id: str
    name: str
    driver: str
    internal: bool
    ipv6: bool
    subnets: tuple[IPv4Network, ...]
    gateway: str
    ip_range: IPv4Network | None
    options: Mapping[str, str]
    labels: Mapping[str, str]
    sources_checked: bool | None = None
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's IPv4 address and MAC address on a network. Both are empty while it has none."""

    address: str
    hardware: str
