"""The way through the code: five verbs, joined. Read this first.

settings, rules ──> desired ──┐
                              ├──> diff ──> plan ──> apply ──> engine
engine ──> observe ───────────┘
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import FirewallError, LockLostError, NotProvenError, RefusedError, StoppedError
from clawker_fw.model import Attempt, Desired, Diff, Observed, Sibling, Slots, Verdict
from clawker_fw.reconcile import apply as applying
from clawker_fw.reconcile import attempt as attempts
from clawker_fw.reconcile import origin as origins
from clawker_fw.reconcile import replacement
from clawker_fw.reconcile.advice import Advice, advice
from clawker_fw.reconcile.desired import Blueprint, addressing, desired, slots
from clawker_fw.reconcile.diff import diff
from clawker_fw.reconcile.lock import Holder, Lock, abandoned, at_work
from clawker_fw.reconcile.observe import Observation, observe, unchanged
from clawker_fw.reconcile.plan import plan, teardown, unused_references, without_images
from clawker_fw.reconcile.steps import InTurn, Plan, Step, Wish
from clawker_fw.stack import images
from clawker_fw.stack.container import HELPER
from clawker_fw.stack.digests import Digests

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """How a caller takes part in a change: what it is told, when it wants to stop, how long it waits its turn."""

    tell: applying.Tell
    stopping: Callable[[], bool] = lambda: False
    lock_wait: float = 0.0


@dataclass(frozen=True)
class Look:
    """One look at a stack: what is, what should be in the slots it is in, and the difference.

    What should be follows from the `blueprint`, as it was read for this look.
    """

    blueprint: Blueprint
    observed: Observed
    slots: Slots
    desired: Desired
    diff: Diff
    desired_at: Callable[[Slots], Desired]

    @property
    def failed_attempt(self) -> Attempt | None:
        """The last attempt to close the difference, when there is one still and it failed."""
        return None if self.diff.verdict is Verdict.CURRENT else attempts.last(self.observed)

    @property
    def busy(self) -> Holder | None:
        """Who was changing the stack at that moment, so that what was seen may be half done."""
        return at_work(self.observed.lock)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What somebody should know although it is no difference."""
        return advice(self.observed, self.desired)


def look(reader: EngineReader, blueprint: Blueprint, begun: Observation | None = None) -> Look:
    """Observe a stack, or finish to, and compare it with what it should be."""
    references = tuple(image.reference for image in blueprint.images.values())
    begun = begun or Observation(reader, blueprint.project, {HELPER: blueprint.helper})
    observed = begun.finish(references)
    addresses = addressing(blueprint, observed)

    def desired_at(other: Slots) -> Desired:
        return desired(blueprint, addresses, other)

    now = slots(observed, addresses)
    wanted = desired_at(now)
    return Look(blueprint, observed, now, wanted, diff(observed, wanted), desired_at)


def plan_for(seen: Look, wish: Wish) -> Plan:
    """Return what closes the difference that a look has found."""
    return plan(seen.observed, seen.slots, seen.desired_at, seen.diff, wish)


def converge(
    engine: EngineWriter, read: Callable[[], Blueprint], wish: Wish, turn: Turn, seen: Look | None = None
) -> Look:
    """Make a stack what it should be, prove it, and return the look that proves it.

    What it should be is read again once the lock is held: whoever had it before may have applied other settings.
    `seen` is a look of a moment ago. It is acted on unless somebody was at work, or a container or the settings
    have changed since.

    Raises:
        NotProvenError: when the stack is not current afterwards.
        RefusedError: when it was made from another settings file, or another run is at work.
    """
    blueprint = seen.blueprint if seen else read()
    image = images.lock_image(blueprint.engine, blueprint.release.digests)
    with Lock(engine, blueprint.project, image, turn.lock_wait, turn.stopping) as lock:
        watch = applying.Watch(turn.tell, turn.stopping, lock.require_held)
        if (now := read()) != blueprint:
            blueprint, seen = now, None
        if seen is None or lock.waited or not unchanged(engine, blueprint.project, seen.observed):
            seen = look(engine, blueprint)
        require_settings(seen, wish)
        for round_ in range(_ROUNDS):
            steps = plan_for(seen, wish)
            if steps.empty:
                break
            watch = replace(watch, beginning=_recorder(seen, steps))
            with _attempted(engine, seen):
                applying.apply(engine, steps, built_images(blueprint), watch)
            wish = replace(wish, replace_all=False, replace_uncommitted=round_ > 0)
            seen = look(engine, blueprint)
        with _attempted(engine, seen):
            _require_closed(seen, wish)
        if seen.diff.verdict is Verdict.CURRENT:
            attempts.keep(engine, seen.observed, None)
            origins.keep(engine, seen.observed, blueprint.origin)
    return seen


@contextmanager
def _attempted(engine: EngineWriter, seen: Look) -> Iterator[None]:
    """Leave word of an attempt that fails, for who looks next.

    One that was stopped on purpose has not failed, and one that has lost the lock has nothing to say any more.
    """
    try:
        yield
    except (StoppedError, LockLostError):
        raise
    except FirewallError as error:
        attempts.keep(engine, seen.observed, attempts.failed(error))
        raise


def _require_closed(seen: Look, wish: Wish) -> None:
    left = wish.within(seen.diff).findings
    if left:
        raise NotProvenError(
            "not-proven",
            "Everything was applied, and the stack is still not what it should be.",
            context=[f"{each.sibling}: {each.layer} {each.field}" for each in left],
            hint="`clawker-fw drift` shows what differs.",
        )


def tidy(engine: EngineWriter, seen: Look) -> None:
    """Do what needs no lock when a stack is as it should be, so that whoever has nothing to do takes none."""
    _remove_abandoned_lock(engine, seen.observed)
    if seen.diff.verdict is Verdict.CURRENT and seen.observed.lock is None:
        origins.keep(engine, seen.observed, seen.blueprint.origin)


def _remove_abandoned_lock(engine: EngineWriter, observed: Observed) -> None:
    """Take away the lock of a run that was killed as it gave it back."""
    if observed.lock and abandoned(observed.lock):
        engine.remove(observed.lock.id)


def take_down(
    engine: EngineWriter, project: str, digests: Digests, turn: Turn, *, detach: bool, everything: bool = False
) -> tuple[str, ...]:
    """Remove a stack: containers, volumes and networks; with `everything`, also the images that nothing uses then.

    Return the images of ours that are left and that nothing uses.

    Raises:
        RefusedError: when agents are attached and are not to be taken off.
    """
    observed = observe(engine, project, ())
    if teardown(observed, detach=detach).empty:
        _remove_abandoned_lock(engine, observed)
    else:
        image = images.lock_image(engine.facts(), digests)
        with Lock(engine, project, image, turn.lock_wait, turn.stopping) as lock:
            steps = teardown(observe(engine, project, ()), detach=detach)
            applying.apply(engine, steps, {}, applying.Watch(turn.tell, turn.stopping, lock.require_held))
    observed = observe(engine, project, ())
    if everything and observed.lock is None and not (steps := without_images(observed)).empty:
        applying.apply(engine, steps, {}, applying.Watch(turn.tell, turn.stopping))
        observed = observe(engine, project, ())
    return unused_references(observed)


def built_images(blueprint: Blueprint) -> dict[Sibling, images.BuiltImage]:
    """Return the images that we make ourselves."""
    return {
        sibling: images.bundled(sibling, blueprint.release, blueprint.engine)
        for sibling, image in blueprint.images.items()
        if image.bundled
    }


def require_settings(seen: Look, wish: Wish) -> None:
    """Pass when a stack was made from these settings, or is to be taken over by them.

    Raises:
        RefusedError: when it was made from another settings file.
    """
    if not wish.adopt:
        origins.require_same(seen.observed, seen.blueprint.origin)


def require_up(seen: Look) -> None:
    """Pass when both siblings are there.

    Raises:
        RefusedError: when the stack is not up, so that there is nothing to reload.
    """
    missing = [sibling for sibling in Sibling if sibling not in seen.observed.siblings]
    if missing:
        raise RefusedError(
            "not-up",
            f"The stack {seen.desired.project} is not up: {' and '.join(missing)} missing.",
            hint="Bring it up with `clawker-fw run`.",
        )


def _recorder(seen: Look, steps: Plan) -> Callable[[tuple[Step | InTurn, ...]], None]:
    """Return what writes a record for each sibling that has been replaced because it had drifted."""

    def beginning(stage: tuple[Step | InTurn, ...]) -> None:
        for sibling in replacement.replaced(seen.observed, steps, stage):
            replacement.record(sibling, seen.observed, seen.desired, seen.diff)

    return beginning
