"""Special and private address ranges (RFC 6890)."""

from ipaddress import IPv4Address, IPv4Network

SPECIAL_RANGES = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)
"""Never reachable: this network, loopback, link-local, multicast, reserved and broadcast ranges."""

PRIVATE_RANGES = tuple(
    IPv4Network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",  # Azure's platform services
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
    )
)
"""Reachable only with `allow_private`: private, shared, protocol and benchmark ranges, and Azure's platform."""


def is_special(address: IPv4Address) -> bool:
    """Whether an address can never be reached, whatever the rules."""
    return any(address in network for network in SPECIAL_RANGES)


def is_private(address: IPv4Address) -> bool:
    """Whether an address is only reachable with `allow_private`."""
    return any(address in network for network in PRIVATE_RANGES)
