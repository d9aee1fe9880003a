"""The words that all values are made of: siblings, layers, causes, verdicts, actions, roles."""

from enum import StrEnum

Value = str | int | bool | None | tuple[str, ...]
"""A running or desired value in a finding; JSON can hold it."""


class Sibling(StrEnum):
    """The two containers that enforce."""

    ENVOY = "envoy"
    COREDNS = "coredns"


class Layer(StrEnum):
    """The places where a sibling can differ from what it should be, in the order in which they are shown."""

    STATE = "state"
    LABELS = "labels"
    IMAGE = "image"
    SHAPE = "shape"
    BOOT = "boot"
    HOT = "hot"
    LIVE = "live"


class Cause(StrEnum):
    """Why something differs: the settings or the release want another thing now, or it is not what we made."""

    SETTINGS = "settings"
    UPGRADE = "upgrade"
    TAMPER = "tamper"


class Verdict(StrEnum):
    """What can be said of a sibling or a stack. `unknown` is never taken for `current`."""

    CURRENT = "current"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"


class Action(StrEnum):
    """What closes a finding."""

    CREATE = "create"
    REPLACE = "replace"
    COMMIT = "commit"
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


class Role(StrEnum):
    """The two networks of a stack."""

    AGENTS = "agents"
    EGRESS = "egress"
