"""The parts of a stack: its two firewall containers, its two networks, and their address slots."""

from dataclasses import dataclass
from enum import StrEnum


class Sibling(StrEnum):
    """The two containers of the firewall."""

    ENVOY = "envoy"
    COREDNS = "coredns"


class Role(StrEnum):
    """The two networks of a stack."""

    AGENTS = "agents"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class Slots:
    """The slot of each container: which of its two sets of reserved addresses it uses (0 or 1)."""

    envoy: int = 0
    coredns: int = 0
