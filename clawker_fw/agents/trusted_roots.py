"""The volume with which agents trust a stack's certificates. Its content never changes. Pure.

A volume's name ends with a digest of its content, and its label names the roots in it. So the engine's record of
an agent's container shows which roots it trusts.
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
"""The mount point of the volume in agents."""

_MOST_NAMED = 5

SHOWN = 16
"""The digits of a fingerprint or digest in a label or a name."""


@dataclass(frozen=True, slots=True)
class Trust:
    """An agent's trust: the volume's name, label and files, and the variables that point programs to the files."""

    volume: str
    roots: str
    files: Files = field(repr=False)
    environment: Mapping[str, str]


def label(roots: bytes) -> str:
    """Return the label of a volume with these roots (PEM, the newest first)."""
    return " ".join(fingerprint[:SHOWN] for fingerprint in fingerprints(roots))


def authorities_of(observed: Observed) -> Authorities:
    """Return the roots and intermediates in a stack's Envoy."""
    envoy = observed.siblings.get(Sibling.ENVOY)
    return signing.running(envoy.files) if envoy else NO_AUTHORITIES


def roots_of(observed: Observed) -> bytes:
    """Return the roots (PEM, the newest first) with which a stack inspects TLS, if it does."""
    has = authorities_of(observed)
    return has.trust if has.intermediates else b""


def is_trust(volume: VolumeView) -> bool:
    """Whether a volume is a project's trust volume."""
    project = labels.project_of(volume.labels)
    plain = (volume.driver, volume.options) == ("local", {})
    return (
        bool(project) and plain and labels.TRUST in volume.labels and volume.name.startswith(trust_name(project))
    )


def without(root: str, observed: Observed) -> tuple[str, ...]:
    """Return the sorted names of the agents without a root, given its fingerprint."""
    volumes = {name: volume for name, volume in observed.volumes.items() if is_trust(volume)}
    given = {name for name, volume in volumes.items() if root[:SHOWN] in volume.labels[labels.TRUST].split()}
    agents = (agent for agent in observed.agents if not agent.project)
    return tuple(sorted(agent.name for agent in agents if given.isdisjoint(agent.volumes.values())))


def named(agents: Sequence[str]) -> str:
    """Return the first names as readable text, and how many more there are."""
    more = len(agents) - _MOST_NAMED
    return ", ".join(agents[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def writable(mounts: Iterable[Mount], volumes: Mapping[str, VolumeView]) -> tuple[str, ...]:
    """Return the targets of mounts through which a container can change what agents trust."""
    return tuple(
        mount.target
        for mount in mounts
        if mount.kind == "volume"
        and not mount.read_only
        and mount.source in volumes
        and is_trust(volumes[mount.source])
    )
