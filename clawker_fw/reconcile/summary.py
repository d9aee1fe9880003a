"""summary: what a plan means for people: what becomes of each sibling, of agents and their connections, and why.

Values that `summarize.py` works out. `report/summary.py` has the words.
"""

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
    """What becomes of a sibling, in words, and in the order in which they are named."""

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
    """A release of clawker-fw, as a container's labels name it: its version if that is known, and its build."""

    version: str | None
    sha: str | None

    def __str__(self) -> str:
        """Return it as `--version` does: `0.1.0 (b51912e)`."""
        return build_name(self.version, self.sha)


@dataclass(frozen=True, slots=True)
class Interruption:
    """What agents notice of a plan.

    `unserved` are the siblings that serve nobody until then. `drained` is for how many seconds open connections of
    a replaced Envoy may go on; None if no Envoy with connections is replaced. `cut` is whether Envoy may cut some
    although it stays. `lookups` is whether a query may be lost while CoreDNS is replaced, and `outage` whether
    nothing is served while the plan is performed.
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

    `absent` is whether no part of the stack exists yet, and `count` how many rules it is to have. `builds` are the
    release of each running sibling and the installed one, where they differ. `reasons` are the findings by cause.
    `asked` is whether siblings are replaced because the
    user asked for that. `housekeeping` is whether something unused is removed. `refused` is why no plan can be
    made: then the effects are unknown.
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
    """The relays of published ports that are made or replaced."""
    relays_cut: bool = False
    """Whether one of these runs now, so that open connections to published ports are cut."""
    refused: FirewallError | None = None


def release_version(observed: Observed) -> str | None:
    """Return the release that made the running stack: the tag of a CoreDNS that we have built."""
    seen = observed.siblings.get(Sibling.COREDNS)
    applied = labels.read_applied(seen.container.labels) if seen else None
    return version_in(applied.image) if applied and applied.image_ids else None


_DERIVED = frozenset({"memory_swap", "ulimits"})
"""Fields of a shape that no setting names: they follow from `memory`, `processors` and `connections`."""


def is_follow_up(finding: Finding) -> bool:
    """Whether a finding only shows in files and programs what a new release or a change of the settings is."""
    generated = finding.layer in {Layer.BOOT, Layer.HOT, Layer.LIVE}
    derived = finding.layer is Layer.SHAPE and finding.field.partition(".")[0] in _DERIVED
    return finding.cause is Cause.UPGRADE or (finding.cause is Cause.SETTINGS and (generated or derived))
