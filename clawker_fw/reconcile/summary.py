"""summary: what a plan means for siblings, agents and connections. `report/summary.py` has the words."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.errors import FirewallError
from clawker_fw.model.differences import Cause, Finding, Layer
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare.rules import RuleChanges
from clawker_fw.stack import labels
from clawker_fw.stack.image_tar import version_in
from clawker_fw.stack.release import build_name


class Effect(StrEnum):
    """The effect on a sibling, in the order of display."""

    CREATED = "created"
    RECREATED = "recreated with the networks"
    REPLACED = "replaced"
    REATTACHED = "put back on the network"
    STARTED = "started"
    UNPAUSED = "unpaused"
    UPDATED = "updated"
    ADDRESSED = "moved back to its address"
    ENTRUSTED = "sent its secrets"
    RENAMED = "renamed"
    PROVIDED = "provided with the image again"


@dataclass(frozen=True, slots=True)
class Build:
    """A clawker-fw release from a container's labels: its version, if known, and its build."""

    version: str | None
    sha: str | None

    def __str__(self) -> str:
        """Return it as `--version` does: `0.1.0 (b51912e)`."""
        return build_name(self.version, self.sha)


@dataclass(frozen=True, slots=True)
class Interruption:
    """What agents notice of a plan.

    `unserved`: the siblings that serve nobody until it is done. `drained`: for how many seconds a replaced Envoy's
    connections may stay open; None without such connections. `cut`: an Envoy that stays may cut connections.
    `lookups`: a query may be lost while CoreDNS is replaced. `outage`: nothing is served meanwhile.
    """

    unserved: tuple[Sibling, ...] = ()
    drained: float | None = None
    cut: bool = False
    lookups: bool = False
    outage: bool = False

    def __bool__(self) -> bool:
        """Whether agents notice anything."""
        return bool(self.unserved or self.drained is not None or self.cut or self.lookups or self.outage)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a plan means.

    `absent`: no part of the stack exists yet. `count`: the number of desired rules. `builds`: the releases of the
    running siblings and the installation, where they differ. `reasons`: the findings by cause. `asked`: the user
    requested the replacement. `housekeeping`: something unused is removed. `refused`: why no plan is possible, so
    that the effects are unknown.
    """

    project: str
    absent: bool
    count: int
    effects: Mapping[Effect, tuple[Sibling, ...]]
    interruption: Interruption
    changes: RuleChanges | None
    builds: Mapping[Sibling, tuple[Build, Build]]
    reasons: Mapping[Cause, tuple[Finding, ...]]
    asked: bool = False
    housekeeping: bool = False
    relays: tuple[str, ...] = ()
    """The relays of published ports that are created or replaced."""
    relays_cut: bool = False
    """Whether one of these runs now, so that open connections to published ports are cut."""
    refused: FirewallError | None = None


def release_version(observed: Observed) -> str | None:
    """Return the running stack's release: the tag of the CoreDNS that we built."""
    coredns = observed.siblings.get(Sibling.COREDNS)
    applied = labels.read_applied(coredns.container.labels) if coredns else None
    return version_in(applied.image) if applied and applied.image_ids else None


_DERIVED = frozenset({"memory_swap", "ulimits"})
"""Fields of a shape that follow from the settings `memory`, `processors` and `connections`."""


def is_follow_up(finding: Finding) -> bool:
    """Whether a finding is only the effect of a new release or changed settings on files and programs."""
    generated = finding.layer in {Layer.BOOT, Layer.HOT, Layer.LIVE}
    derived = finding.layer is Layer.SHAPE and finding.field.partition(".")[0] in _DERIVED
    return finding.cause is Cause.UPGRADE or (finding.cause is Cause.SETTINGS and (generated or derived))
