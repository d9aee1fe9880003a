"""A watcher's decisions: which events matter, and which findings may disappear without action. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from clawker_fw.agents import judge
from clawker_fw.agents.judge import Agent
from clawker_fw.errors import FirewallError
from clawker_fw.model.differences import Action, Diff, Finding, Layer, Verdict
from clawker_fw.model.engines import Event
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare.live import ANSWER, SIGNER
from clawker_fw.reconcile.compare.state import RESTARTS
from clawker_fw.stack.container import HELPER_PATH, container_names, lock_name
from clawker_fw.stack.topology import network_names, publishing_name


class Trigger(StrEnum):
    """Why the stack was compared."""

    START = "start"
    EVENT = "event"
    INTERVAL = "interval"
    RETRY = "again"


class Reaction(StrEnum):
    """The watcher's reaction to a comparison."""

    NOTHING = "nothing"
    LEAVE = "leave"
    SETTLE = "settle"
    HOLD = "hold"
    HEAL = "heal"
    RETRY = "retry"


class RunOutcome(StrEnum):
    """How a heal ended."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Decision:
    """One comparison, and the reaction.

    `found` are its findings, `healed` those to close, and `left` those that remain. The `verdicts` are about the
    latter, and None if the comparison failed. `warnings` are only reported. `seconds` is the total duration, and
    `wait` the time until the next attempt.
    """

    trigger: Trigger
    answer: Reaction
    seconds: float
    verdicts: Mapping[Sibling, Verdict] | None = None
    findings: tuple[Finding, ...] = ()
    healed: tuple[Finding, ...] = ()
    left: tuple[Finding, ...] = ()
    outcome: RunOutcome | None = None
    error: FirewallError | None = None
    unused: FirewallError | None = None
    """Why the current settings are not used, so that the previous ones stay in force."""
    wait: float | None = None
    warnings: tuple[str, ...] = ()
    agents: tuple[Agent, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The stack's verdict after healing, as in `drift`."""
        of_siblings = self.verdict_of_siblings
        return of_siblings and judge.verdict(of_siblings, self.agents)

    @property
    def verdict_of_siblings(self) -> Verdict | None:
        """The same without agents that bypass the firewall, as in `drift --agents ignore`."""
        return None if self.verdicts is None else Diff(self.left, self.verdicts).verdict


WITHOUT_SETTINGS = frozenset({Action.START, Action.UNPAUSE, Action.REATTACH, Action.CLAIM, Action.DETACH})
"""Actions that restore a stack without knowing the current settings."""

_READING = {
    (HELPER_PATH, verb) for verb in ("probe", "health", "suppressed", "lookup", "try", "secrets", "relayed")
}
"""Commands in our containers that never change a compared file: probes, the engine's frequent health check,
queries of `explain`, and the check of Envoy's secrets."""


@dataclass(frozen=True, slots=True)
class Ours:
    """What makes an event relevant: our names, and the state in the last comparison."""

    names: frozenset[str]
    lock: str
    containers: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()
    publishers: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    """Containers that don't run yet, or no longer, and will be on our networks when they do."""


def ours(project: str, observed: Observed | None = None, admits: str = "") -> Ours:
    """Return a project's names, containers and images. Containers on the network `admits` are to be attached."""
    names = {name for sibling in Sibling for name in container_names(project, sibling)}
    names |= {*network_names(project).values(), publishing_name(project), *filter(None, [admits])}
    own = Ours(frozenset(names), lock_name(project))
    if observed is None:
        return own
    containers = [sibling.container for sibling in (*observed.siblings.values(), *observed.leftovers)]
    containers += [relay.container for relay in observed.relays]
    images = {text for reference, view in observed.images.items() for text in (reference, view.id if view else "")}
    unattached = (container for container in observed.listing if not container.attached)
    return replace(
        own,
        containers=frozenset(container.id for container in containers),
        images=frozenset(images - {""}),
        agents=frozenset(agent.id for agent in observed.agents),
        publishers=frozenset(publisher.id for publisher in observed.publishers),
        waiting=frozenset(container.id for container in unattached if not names.isdisjoint(container.networks)),
    )


def matters(event: Event, own: Ours) -> bool:
    """Whether an event is a reason to compare the stack."""
    # The relay of an agent that published ports must be removed as well.
    departed = (event.kind, event.action) == ("container", "destroy") and event.container in own.publishers
    if departed or is_lock_free(event, own):
        return True
    about_us = event.container in own.containers or not own.names.isdisjoint(event.names)
    match event.kind, event.action:
        case "image", _:
            return not own.images.isdisjoint(event.names)
        case "network", "connect" | "disconnect":
            return event.container in own.containers
        case "container", "exec_start":
            return about_us and tuple(event.words.split()[:2]) not in _READING
        case "container", "health_status":
            return about_us and event.words != "healthy"
    return about_us and event.action != "exec_die"  # see `Programs`


class Programs:
    """Programs that others run in our containers. They may change something until they end."""

    def __init__(self) -> None:
        self._running: set[str] = set()

    def ended(self, event: Event, own: Ours) -> bool:
        """Whether an event ends a program whose start mattered. Call this for each event."""
        if event.action == "exec_start" and event.run and matters(event, own):
            self._running.add(event.run)
        if event.action != "exec_die" or event.run not in self._running:
            return False
        self._running.remove(event.run)
        return True


def is_arrival(event: Event, own: Ours) -> bool:
    """Whether a container joins one of our networks, or an agent joins another one, which may bypass us.

    The engine sends this event before the start, and the network shows a container only while it runs. If a start
    takes longer, the comparison records the container as waiting, and its start counts.
    """
    if (event.kind, event.action) == ("container", "start"):
        return event.container in own.waiting
    if (event.kind, event.action) != ("network", "connect"):
        return False
    return event.container in own.agents or not own.names.isdisjoint(event.names)


def is_lock_free(event: Event, own: Ours) -> bool:
    """Whether another run has just released the lock."""
    return event.kind == "container" and event.action == "destroy" and own.lock in event.names


_UNWELL = {
    *((Layer.STATE, field) for field in ("status", "health", RESTARTS)),
    *((Layer.LIVE, field) for field in ("network", ANSWER, SIGNER)),
}


def is_unwell(findings: tuple[Finding, ...], sibling: Sibling) -> bool:
    """Whether a sibling is to be replaced only because it does not work.

    The new one may fail as well, so such replacements need a backoff. Manual changes are closed at once, however
    often.
    """
    reasons = [finding for finding in findings if finding.sibling is sibling and finding.action is Action.REPLACE]
    return bool(reasons) and all((reason.layer, reason.field) in _UNWELL for reason in reasons)


def may_pass(findings: tuple[Finding, ...]) -> bool:
    """Whether the engine is restarting a sibling, or one has just started and does not answer yet."""
    return any(
        is_unwell(findings, finding.sibling)
        and ((finding.field, finding.running) == ("status", "restarting") or finding.field in {ANSWER, SIGNER})
        for finding in findings
    )
