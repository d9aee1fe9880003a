"""Removing a stack, under its lock."""

from clawker_fw.digests import Digests
from clawker_fw.engine.port import EngineWriter
from clawker_fw.reconcile.apply import ApplyContext, apply
from clawker_fw.reconcile.converge import RunContext
from clawker_fw.reconcile.lock import Lock, others_at_work, remove_abandoned
from clawker_fw.reconcile.observe import observe
from clawker_fw.reconcile.removal import teardown, unused_references, without_images
from clawker_fw.stack import images


def take_down(
    engine: EngineWriter,
    project: str,
    digests: Digests,
    context: RunContext,
    *,
    detach: bool,
    everything: bool = False,
) -> tuple[str, ...]:
    """Remove a stack's containers, volumes and networks; with `everything`, our unused images as well.

    While a run of another project is at work, which may need them, these are left.
    Return the references of our unused images that are left.

    Raises:
        RefusedError: when agents are attached and `detach` is false.
    """
    observed = observe(engine, project, ())
    if teardown(observed, detach=detach).empty:
        remove_abandoned(engine, observed)
    else:
        image = images.lock_image(engine.facts(), digests)
        with Lock(engine, project, image, context.lock_wait, context.stopping) as lock:
            steps = teardown(observe(engine, project, ()), detach=detach)
            apply(engine, steps, {}, ApplyContext(context.on_progress, context.stopping, lock.require_held))
    observed = observe(engine, project, ())
    free = observed.lock is None and not others_at_work(observed)
    if everything and free and not (steps := without_images(observed)).empty:
        apply(engine, steps, {}, ApplyContext(context.on_progress, context.stopping))
        observed = observe(engine, project, ())
    return unused_references(observed)
