"""What a watcher decides: which events matter, what is to be healed, what may pass by itself. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from clawker_fw.errors import FirewallError, SettingsError
from clawker_fw.model import Action, Diff, Event, Finding, Layer, Observed, Sibling, Verdict
from clawker_fw.reconcile.diff import ANSWER, RESTARTS
from clawker_fw.stack.container import HELPER_PATH, container_names, lock_name
from clawker_fw.stack.topology import network_names


class Trigger(StrEnum):
    """Why a look was taken."""

    START = "start"
    EVENT = "event"
    INTERVAL = "interval"
    AGAIN = "again"


class Answer(StrEnum):
    """What a look was answered with."""

    NOTHING = "nothing"
    LEAVE = "leave"
    SETTLE = "settle"
    HOLD = "hold"
    HEAL = "heal"
    RETRY = "retry"


class Outcome(StrEnum):
    """How a heal ended."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Decision:
    """One look, and what came of it.

    `found` is what the look found, `healed` what of it was to be closed, `left` what there is afterwards, which is
    what the `verdicts` are about: none when nothing could be looked at. `warnings` are told, and no reason to do
    anything. `seconds` are how long all of it took, `wait` how long it is until the next try.
    """

    trigger: Trigger
    answer: Answer
    seconds: float
    verdicts: Mapping[Sibling, Verdict] | None = None
    found: tuple[Finding, ...] = ()
    healed: tuple[Finding, ...] = ()
    left: tuple[Finding, ...] = ()
    outcome: Outcome | None = None
    error: FirewallError | None = None
    unused: SettingsError | None = None
    """Why the settings as they are now are not used; what was applied before is enforced."""
    wait: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The stack's verdict afterwards."""
        return None if self.verdicts is None else Diff(self.left, self.verdicts).verdict


WITHOUT_SETTINGS = frozenset({Action.START, Action.UNPAUSE, Action.REATTACH, Action.CLAIM, Action.DETACH})
"""What puts a stack back to what it was, whatever the settings say by now."""


# --- which events matter --------------------------------------------------------------------------------------

_OURS_TO_RUN = {f"{HELPER_PATH} probe", f"{HELPER_PATH} health"}
"""Commands that only look: ours, and the engine's own health check, every few seconds."""


@dataclass(frozen=True, slots=True)
class Ours:
    """What an event has to be about to matter: our names, and what was there when we last looked."""

    names: frozenset[str]
    lock: str
    containers: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()


def ours(project: str, seen: Observed | None = None) -> Ours:
    """Return what is a project's own."""
    names = {name for sibling in Sibling for name in container_names(project, sibling)}
    names |= set(network_names(project).values())
    if seen is None:
        return Ours(frozenset(names), lock_name(project))
    there = (*seen.siblings.values(), *seen.leftovers)
    images = {text for reference, view in seen.images.items() for text in (reference, view.id if view else "")}
    return Ours(
        frozenset(names),
        lock_name(project),
        frozenset(each.container.id for each in there),
        frozenset(images - {""}),
    )


def matters(event: Event, own: Ours) -> bool:
    """Whether an event is a reason to look."""
    if is_lock_free(event, own):
        return True
    about_us = event.container in own.containers or not own.names.isdisjoint(event.names)
    match event.kind, event.action:
        case "image", _:
            return not own.images.isdisjoint(event.names)
        case "network", "connect" | "disconnect":
            return event.container in own.containers
        case "container", "exec_start":
            return about_us and event.words not in _OURS_TO_RUN
        case "container", "health_status":
            return about_us and event.words != "healthy"
    return about_us


def is_arrival(event: Event, own: Ours) -> bool:
    """Whether somebody comes onto a network of ours, perhaps with an address that only a sibling may have.

    The engine tells before it starts them: they are not seen before they run.
    """
    return (event.kind, event.action) == ("network", "connect") and not own.names.isdisjoint(event.names)


def is_lock_free(event: Event, own: Ours) -> bool:
    """Whether somebody has just given the lock back."""
    return event.kind == "container" and event.action == "destroy" and own.lock in event.names


# --- what may pass by itself, and what does not work ----------------------------------------------------------


_UNWELL = {
    *((Layer.STATE, field) for field in ("status", "health", RESTARTS)),
    *((Layer.LIVE, field) for field in ("network", ANSWER)),
}


def is_unwell(findings: tuple[Finding, ...], sibling: Sibling) -> bool:
    """Whether a sibling would be replaced for no other reason than that it does not work.

    A new one may not work either, so this is what must not be done over and over. What somebody did to a sibling
    is not of that kind, however often it is done.
    """
    reasons = [each for each in findings if each.sibling is sibling and each.action is Action.REPLACE]
    return bool(reasons) and all((each.layer, each.field) in _UNWELL for each in reasons)


def may_pass(findings: tuple[Finding, ...]) -> bool:
    """Whether a sibling is just being started: by the engine, or so lately that it does not answer yet."""
    return any(
        is_unwell(findings, each.sibling)
        and ((each.field, each.running) == ("status", "restarting") or each.field == ANSWER)
        for each in findings
    )
