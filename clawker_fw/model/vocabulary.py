"""The terms of all other values: siblings, layers, causes, verdicts, actions, roles."""

from enum import StrEnum

Value = str | int | bool | None | tuple[str, ...]
"""A running or desired value in a finding, representable in JSON."""


class Sibling(StrEnum):
    """The two containers of the firewall."""

    ENVOY = "envoy"
    COREDNS = "coredns"


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
    """Why a value differs: settings, release, the engine's machine or an agent, or somebody tampered with it.

    `agent`: one that publishes ports has come or gone.
    """

    SETTINGS = "settings"
    MACHINE = "machine"
    UPGRADE = "upgrade"
    AGENT = "agent"
    TAMPER = "tamper"


class Verdict(StrEnum):
    """The state of a sibling or a stack. `unknown` never counts as `current`.

    Only a stack can be `open`: an agent has a way around the firewall, whatever state the siblings are in.
    """

    CURRENT = "current"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"
    OPEN = "open"


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
"""The actions that are about the ports of one agent, and about no sibling."""


class Role(StrEnum):
    """The two networks of a stack."""

    AGENTS = "agents"
    EGRESS = "egress"
