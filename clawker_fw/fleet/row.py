"""What is known of one host, as plain values."""

import re
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.errors import FirewallError


class HostVerdict(StrEnum):
    """The verdict on a host: that on its stack, or why there is none."""

    CURRENT = "current"
    DRIFTED = "drifted"
    OPEN = "open"
    UNKNOWN = "unknown"
    NO_STACK = "no-stack"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a host could not be asked, or its answer not be used: an error as values."""

    code: str
    message: str
    context: tuple[str, ...]
    hint: str

    @classmethod
    def of(cls, error: FirewallError) -> "Trouble":
        """Return an error as values."""
        return cls(error.code, error.message, error.context, error.hint)


@dataclass(frozen=True, slots=True)
class StackRelease:
    """The release that has made a stack: its version and its build, as far as the stack says."""

    version: str | None
    build: str | None
    installed: bool
    """Whether it is the one that compares."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a swarm's manager knows of a node, and of the watcher that a service of ours runs there."""

    state: str
    availability: str
    role: str
    watcher: str | None = None
    """The state of the watcher's task, in the manager's words; None if there is none."""
    watcher_since: str = ""
    """Since when it has this state (RFC 3339)."""
    watcher_says: str = ""
    """What the manager says about the task."""

    @property
    def proven(self) -> bool:
        """Whether the watcher says that the stack is current. Its task is healthy only then."""
        return self.state == "ready" and self.watcher == "running"


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return the key by which names are sorted as people do: `node-9` before `node-10`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]
