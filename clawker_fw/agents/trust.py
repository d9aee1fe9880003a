"""What agents are given so that they trust a stack's certificates: a volume whose content never changes. Pure.

A volume's name ends with a digest of its content, and its label names the roots in it. So which roots an agent
trusts is in the engine's record of its container.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clawker_fw.certificates.credentials import NO_AUTHORITIES, Authorities, fingerprints
from clawker_fw.model.containers import Mount
from clawker_fw.model.files import Files
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.model.volumes import VolumeView
from clawker_fw.stack import labels
from clawker_fw.stack.container import trust_name
from clawker_fw.stack.envoy import signing

TARGET = "/etc/clawker-fw/trust"
"""Where the volume is mounted in an agent."""

_MOST_NAMED = 5

SHOWN = 16
"""How many digits of a fingerprint or digest are in a label or a name."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What an agent gets: the volume's name, label and files, and the variables by which programs find these."""

    volume: str
    roots: str
    files: Files = field(repr=False)
    environment: Mapping[str, str]


def label(roots: bytes) -> str:
    """Return the label of a volume with these roots (PEM, the newest first)."""
    return " ".join(each[:SHOWN] for each in fingerprints(roots))


def authorities_of(observed: Observed) -> Authorities:
    """Return the roots and intermediates that a stack's Envoy has."""
    envoy = observed.siblings.get(Sibling.ENVOY)
    return signing.running(envoy.files) if envoy else NO_AUTHORITIES


def roots_of(observed: Observed) -> bytes:
    """Return the roots (PEM, the newest first) under which a stack inspects connections, if it does."""
    has = authorities_of(observed)
    return has.trust if has.intermediates else b""


def is_trust(volume: VolumeView) -> bool:
    """Whether a volume has what agents of some project trust."""
    project = labels.project_of(volume.labels)
    plain = (volume.driver, volume.options) == ("local", {})
    return (
        bool(project) and plain and labels.TRUST in volume.labels and volume.name.startswith(trust_name(project))
    )


def without(root: str, observed: Observed) -> tuple[str, ...]:
    """Return the names of the agents that have not been given a root, by its fingerprint, sorted."""
    volumes = {name: each for name, each in observed.volumes.items() if is_trust(each)}
    given = {name for name, each in volumes.items() if root[:SHOWN] in each.labels[labels.TRUST].split()}
    agents = (each for each in observed.agents if not each.project)
    return tuple(sorted(each.name for each in agents if given.isdisjoint(each.volumes.values())))


def named(agents: Sequence[str]) -> str:
    """Return the first names as a person reads them, and how many there are besides."""
    more = len(agents) - _MOST_NAMED
    return ", ".join(agents[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def writable(mounts: Iterable[Mount], volumes: Mapping[str, VolumeView]) -> tuple[str, ...]:
    """Return the places of mounts by which a container can change what agents trust."""
    return tuple(
        each.target
        for each in mounts
        if each.kind == "volume"
        and not each.read_only
        and each.source in volumes
        and is_trust(volumes[each.source])
    )
