"""The desired state of a stack."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from clawker_fw.model.containers import Shape
from clawker_fw.model.files import Files
from clawker_fw.model.images import Image
from clawker_fw.model.networks import NetworkSpec
from clawker_fw.model.stacks import Role, Sibling


@dataclass(frozen=True, slots=True)
class Rules:
    """A summary of a stack's rules: their number, and the digest of their canonical form."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class DesiredSibling:
    """The desired state of Envoy or CoreDNS. `live` maps each resource to the digest that must be loaded.

    `later` are these digests after each of the next expiries, which the container applies without a command.
    `kept` are further files of a new container; they may change later. `from_machine` are values chosen by the
    Docker host's resources.
    """

    sibling: Sibling
    image: Image
    labels: Mapping[str, str]
    shape: Shape
    boot: Files = dataclasses.field(repr=False)
    hot: Files = dataclasses.field(repr=False)
    live: Mapping[str, str]
    rules: Rules
    later: Sequence[Mapping[str, str]] = ()
    kept: Files = dataclasses.field(default_factory=dict, repr=False)
    from_machine: Mapping[str, int | str] = dataclasses.field(default_factory=dict)


def version_of(live: Mapping[str, str]) -> str:
    """Return 16 hexadecimal digits, derived from all digests, for people to compare."""
    return hashlib.sha256("".join(f"{name} {live[name]}\n" for name in sorted(live)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired state of a whole stack.

    `reserved` are the addresses on each network that only firewall containers may have, in both slots; `blocks`
    are reserved on the agent network. `images` are the references of all images of this release with these
    settings. `unknown_ends` counts expiries that the containers don't know yet. `secrets` are the ids of injected
    secrets.
    """

    project: str
    service_address: IPv4Address
    reserved: Mapping[Role, tuple[str, ...]]
    blocks: tuple[IPv4Network, ...]
    networks: Mapping[Role, NetworkSpec]
    siblings: Mapping[Sibling, DesiredSibling]
    images: tuple[str, ...]
    unknown_ends: int = 0
    observing_until: int | None = None
    """Until when (seconds since 1970) requests pass for which there is no rule."""
    secrets: tuple[str, ...] = ()

    def is_reserved(self, role: Role, address: str) -> bool:
        """Whether an address on a network is reserved."""
        if not address:
            return False
        in_block = role is Role.AGENTS and any(IPv4Address(address) in block for block in self.blocks)
        return in_block or address in self.reserved[role]

    @property
    def rules(self) -> Rules:
        """The rules that Envoy and CoreDNS serve."""
        return self.siblings[Sibling.ENVOY].rules
