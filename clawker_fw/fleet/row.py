"""What is known of one host, as plain values."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from clawker_fw.errors import FirewallError
from clawker_fw.model import Finding, Rules, Sibling, Verdict


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


@dataclass(frozen=True, slots=True)
class Proof:
    """When a stack was known to be current the last time, and by whom."""

    at: str
    """RFC 3339, in UTC."""
    by: Literal["comparison", "watcher"]
    """`comparison`: this command; `watcher`: as the manager of the swarm knows from its watcher."""


@dataclass(frozen=True, slots=True)
class Row:
    """One host: its verdict, and what led to it. What is unknown is None or empty."""

    name: str
    verdict: HostVerdict
    endpoint: str = ""
    source: str = ""
    """What named it: a docker context, an option, or the swarm."""
    trouble: Trouble | None = None
    engine: str | None = None
    release: StackRelease | None = None
    rules: Rules | None = None
    """What the siblings serve."""
    agents: int | None = None
    open_agents: tuple[str, ...] = ()
    proof: Proof | None = None
    busy: str = ""
    said: tuple[str, ...] = ()
    """What closing the differences means, in lines for people."""
    findings: tuple[Finding, ...] = ()
    """Without the contents of files."""
    siblings: Mapping[Sibling, Verdict] = field(default_factory=dict)
    made_from: tuple[str, ...] = ()
    """The other settings files that the stack was made from."""
    node: NodeState | None = None
    seconds: float = 0.0


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return the key by which names are sorted as people do: `node-9` before `node-10`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]


def majority(rows: Sequence[Row]) -> str | None:
    """Return the digest of the rules that most hosts serve; None if none does, or no digest is ahead."""
    ranked = Counter(each.rules.digest for each in rows if each.rules).most_common(2)
    ahead = len(ranked) == 1 or (len(ranked) > 1 and ranked[0][1] > ranked[1][1])
    return ranked[0][0] if ahead else None
