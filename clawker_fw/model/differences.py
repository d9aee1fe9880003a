"""The differences between the desired and the observed state, and the verdict on them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.model.stacks import Sibling

Value = str | int | bool | None | tuple[str, ...]
"""A value in a finding, representable in JSON."""

LEFTOVER = "leftover."
"""The prefix of fields that report remains of an unfinished run."""


class Layer(StrEnum):
    """The aspects in which a sibling can differ from its desired state, in the order in which they are shown."""

    STATE = "state"
    LABELS = "labels"
    IMAGE = "image"
    SHAPE = "shape"
    BOOT = "boot"
    HOT = "hot"
    LIVE = "live"


class Cause(StrEnum):
    """Why a value differs: settings, release, the Docker host or an agent, or somebody tampered with it.

    `agent`: one that publishes ports has come or gone.
    """

    SETTINGS = "settings"
    MACHINE = "machine"
    UPGRADE = "upgrade"
    AGENT = "agent"
    TAMPER = "tamper"


class Verdict(StrEnum):
    """The state of a sibling or a stack. `unknown` never counts as `current`.

    `observing`: it is as the settings say, which let requests pass for which there is no rule.
    Only a stack can be `open`: an agent has a way around the firewall, whatever state the siblings are in.
    """

    CURRENT = "current"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"
    OBSERVING = "observing"
    OPEN = "open"

    @property
    def settled(self) -> bool:
        """Whether nothing differs from the settings."""
        return self in {Verdict.CURRENT, Verdict.OBSERVING}


class Action(StrEnum):
    """The action that resolves a finding. `none` is left to people: the cause is outside the stack."""

    CREATE = "create"
    REPLACE = "replace"
    COMMIT = "commit"
    GIVE = "give"
    CLAIM = "claim"
    START = "start"
    UNPAUSE = "unpause"
    REATTACH = "reattach"
    REMOVE = "remove"
    RENAME = "rename"
    LOAD = "load"
    PULL = "pull"
    DETACH = "detach"
    RECREATE_NETWORKS = "recreate-networks"
    PUBLISH = "publish"
    UNPUBLISH = "unpublish"
    NONE = "none"


CLOSING = frozenset(Action) - {Action.NONE}
"""The actions that a run can perform."""

RELAYING = frozenset({Action.PUBLISH, Action.UNPUBLISH})
"""The actions that only concern one agent's ports."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    If the values are digests of files, `contents` are the running and the desired content. If they are image ids,
    `versions` are the running and the desired program's versions, or None if unknown.
    """

    sibling: Sibling
    layer: Layer
    field: str
    running: Value
    desired: Value
    cause: Cause
    action: Action
    contents: tuple[bytes, bytes] | None = dataclasses.field(default=None, repr=False)
    versions: tuple[str | None, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Diff:
    """All findings, and the verdict on each sibling."""

    findings: tuple[Finding, ...]
    verdicts: Mapping[Sibling, Verdict]

    @property
    def verdict(self) -> Verdict:
        """The worse verdict of Envoy and CoreDNS. `drifted` is worse than `unknown`."""
        verdicts = set(self.verdicts.values())
        worst_first = (Verdict.DRIFTED, Verdict.UNKNOWN, Verdict.OBSERVING, Verdict.CURRENT)
        return next(verdict for verdict in worst_first if verdict in verdicts)

    def of(self, sibling: Sibling) -> tuple[Finding, ...]:
        """Return the findings of one sibling."""
        return tuple(finding for finding in self.findings if finding.sibling is sibling)
