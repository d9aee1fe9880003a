"""Under the stack's lock: perform plans until nothing differs, and record a failed attempt for `drift`."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import (
    DiskFullError,
    FirewallError,
    LockLostError,
    NotProvenError,
    RefusedError,
    StoppedError,
    SubnetTakenError,
)
from clawker_fw.model.differences import Action, Layer
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import records
from clawker_fw.reconcile.apply import Progress, ProgressCallback, RunContext, apply
from clawker_fw.reconcile.compare.live import AGENTS_SEE
from clawker_fw.reconcile.desired_state import Blueprint, built_images
from clawker_fw.reconcile.lock import Lock, at_work, remove_abandoned
from clawker_fw.reconcile.observe import observe, settled_health, unchanged
from clawker_fw.reconcile.one_shot import ACCEPT_FRAMES
from clawker_fw.reconcile.pipeline import Comparison, compare
from clawker_fw.reconcile.plan import teardown
from clawker_fw.reconcile.secrets_given import give
from clawker_fw.reconcile.steps import Commit, ConvergeOptions, Create, Plan, Remove, RemoveImage, RemoveVolume
from clawker_fw.reconcile.unused import unused_references
from clawker_fw.stack import images, labels

LOG = logging.getLogger("clawker_fw")

_ROUNDS = 3

_WITHOUT_ROOM = (Commit, RemoveImage, RemoveVolume)
"""Steps that need no room on the engine's disk."""

_CHOICES = 20
"""How often subnets are chosen. If several runs choose the same one, one of them gets it each time."""

_SPECIFIED = frozenset({Layer.LABELS, Layer.IMAGE, Layer.SHAPE, Layer.BOOT})
"""The layers of a sibling's specification. The other layers are its state and behaviour."""

_MOST_NAMED = 3


def converge(
    engine: EngineWriter,
    read: Callable[[], Blueprint],
    options: ConvergeOptions,
    context: RunContext,
    comparison: Comparison | None = None,
) -> Comparison:
    """Bring a stack to its desired state, and return the last comparison.

    The settings are read again under the lock, because the previous holder may have applied newer ones.
    `comparison` is from before the lock, and reused unless another run, a container or the settings changed since.

    Raises:
        NotProvenError: if the stack is not current afterwards.
        RefusedError: if the stack was made from another settings file, or another run holds the lock.
    """
    blueprint = comparison.blueprint if comparison else read()
    image = images.lock_image(blueprint.engine)
    with Lock(engine, blueprint.project, image, context.lock_wait, context.stopping) as lock:
        context = replace(context, require_lock=lock.require_held)
        if (now := read()) != blueprint:
            blueprint, comparison = now, None
        if comparison is None or lock.waited or not unchanged(engine, blueprint.project, comparison.observed):
            comparison = compare(engine, blueprint, lock.container)
        require_settings(comparison, options)
        require_secrets(comparison, options)
        context.require(comparison.observed)
        for round_ in range(_ROUNDS):
            steps = comparison.plan(options)
            if steps.empty:
                break
            if lock.full and not all(isinstance(step, _WITHOUT_ROOM) for step in steps.steps):
                raise lock.full
            comparison = _performed(engine, comparison, options, context, lock.container)
            options = replace(options, replace_all=False, replace_uncommitted=round_ > 0)
            # Siblings end expired rules. Without a lock, another run may have applied newer settings.
            blueprint = read() if lock.full else blueprint.at(context.wall())
            comparison = compare(engine, blueprint, lock.container)
        with _attempted(engine, comparison):
            _require_closed(comparison, options)
            _require_healthy(engine, comparison)
        if comparison.diff.verdict.settled and not lock.full:
            records.forget_attempts(engine, comparison.observed)
            records.keep_origin(engine, comparison.observed, blueprint.origin)
        remove_abandoned(engine, comparison.observed)
    return comparison


def _performed(
    engine: EngineWriter, comparison: Comparison, options: ConvergeOptions, context: RunContext, lock: str
) -> Comparison:
    """Perform the plan that closes a difference, with new subnets if one was taken. Returns its comparison."""
    for choice in range(_CHOICES):
        blueprint, plan = comparison.blueprint, comparison.plan(options)
        step_context = replace(
            context,
            give=partial(give, engine, wanted=blueprint.wanted, vault=blueprint.vault),
            on_progress=_recording(context.on_progress, comparison, plan),
        )
        try:
            with _attempted(engine, comparison):
                apply(engine, plan, built_images(blueprint), step_context)
        except SubnetTakenError:
            if choice + 1 == _CHOICES:
                raise
            comparison = compare(engine, blueprint, lock)
        else:
            break
    return comparison


@contextmanager
def _attempted(engine: EngineWriter, comparison: Comparison) -> Iterator[None]:
    """Record a failed attempt for `drift`, unless the run was stopped, lost the lock, or the disk is full."""
    try:
        yield
    except (StoppedError, LockLostError, DiskFullError):
        raise
    except FirewallError as error:
        records.keep_attempt(engine, comparison.observed, error)
        raise


def _require_closed(comparison: Comparison, options: ConvergeOptions) -> None:
    """Require that a run left no difference that it should close."""
    left = options.within(comparison.diff).findings
    if left and all(finding.field == AGENTS_SEE and finding.action is Action.NONE for finding in left):
        raise NotProvenError(
            "agents-cut-off",
            f"The Docker host drops what agents send to {' and '.join(finding.sibling for finding in left)}.",
            context=[line for finding in left if isinstance(finding.running, tuple) for line in finding.running],
            hint=f"Nothing was replaced, because a new one would not be reached either. {ACCEPT_FRAMES}",
        )
    if left:
        raise NotProvenError(
            "not-proven",
            "Every step was applied, but the stack still differs from its desired state.",
            context=[
                f"{finding.sibling}: {finding.layer} {finding.field}"
                + (f" ({finding.running})" if finding.action is Action.NONE else "")
                for finding in left
            ],
            hint="Run `clawker-fw drift` to see the differences in full.",
        )


def _require_healthy(engine: EngineReader, comparison: Comparison) -> None:
    """Require that each sibling's own check passes. The engine may notice a failure only later."""
    problems = {name: settled_health(engine, sibling) for name, sibling in comparison.observed.siblings.items()}
    failing = [name for name, problem in problems.items() if problem]
    if failing:
        raise NotProvenError(
            "not-proven",
            f"The health check of {' and '.join(failing)} fails.",
            context=[f"{name}: {problems[name]}" for name in failing],
            hint="Replace it with `clawker-fw run --force-recreate`.",
        )


def tidy(engine: EngineWriter, comparison: Comparison, options: ConvergeOptions) -> None:
    """Do the housekeeping of a run that can change nothing, without the lock.

    Raises:
        NotProvenError: if a difference remains that no replacement can close.
    """
    _require_closed(comparison, options)
    _require_healthy(engine, comparison)
    remove_abandoned(engine, comparison.observed)
    if comparison.diff.verdict.settled and comparison.observed.lock is None:
        records.keep_origin(engine, comparison.observed, comparison.blueprint.origin)


def require_settings(comparison: Comparison, options: ConvergeOptions) -> None:
    """Require that the stack was made from this settings file, unless the user adopts it.

    Raises:
        RefusedError: if it was made from another one.
    """
    if not options.adopt:
        records.require_same_origin(comparison.observed, comparison.blueprint.origin)


def require_secrets(comparison: Comparison, options: ConvergeOptions) -> None:
    """Require that every secret in use can be obtained, if the options ask for that.

    Raises:
        SettingsError: if one can't.
    """
    if options.secrets_needed and (vault := comparison.blueprint.vault):
        vault.require(comparison.blueprint.wanted)


NOT_UP = "not-up"
"""The error code of a stack without any sibling."""


def require_up(comparison: Comparison) -> None:
    """Require that both siblings exist.

    Raises:
        RefusedError: if one is missing; with code `NOT_UP` if both are.
    """
    missing = [sibling for sibling in Sibling if sibling not in comparison.observed.siblings]
    if missing:
        raise RefusedError(
            NOT_UP if len(missing) == len(Sibling) else "incomplete",
            f"The stack {comparison.desired.project} is not up: {' and '.join(missing)} missing.",
            hint="Start it with `clawker-fw run`.",
        )


def _recording(on_progress: ProgressCallback, comparison: Comparison, plan: Plan) -> ProgressCallback:
    """Return a callback that also logs each replacement once the old container is being removed."""
    created = {step.sibling for step in plan.steps if isinstance(step, Create)}
    siblings = comparison.observed.siblings
    former = {old.container.id: sibling for sibling, old in siblings.items() if sibling in created}

    def progress(made: Progress) -> None:
        if isinstance(made.step, Remove) and made.share == 0 and made.step.container in former:
            _record_replacement(former[made.step.container], comparison)
        on_progress(made)

    return progress


def _record_replacement(sibling: Sibling, comparison: Comparison) -> None:
    """Log a sibling's replacement, if drift from its specification is the reason."""
    findings = comparison.diff.of(sibling)
    reason = [f"{finding.layer} {finding.field}" for finding in findings if finding.layer in _SPECIFIED]
    if not reason:
        return
    container = comparison.observed.siblings[sibling].container
    fields: dict[str, object] = {"container": container.name, "reason": ", ".join(reason)}
    for label in labels.DRIFT_LABELS:
        name = label.rpartition(".")[2]
        fields[f"desired_{name}"] = comparison.desired.siblings[sibling].labels[label]
        fields[f"running_{name}"] = container.labels.get(label)
    more = f" and {len(reason) - _MOST_NAMED} more" if len(reason) > _MOST_NAMED else ""
    line = f"{container.name} has been replaced: {', '.join(reason[:_MOST_NAMED])}{more} differed"
    LOG.warning("firewall_container_spec_drift", extra={"fields": fields, "line": line})


def take_down(
    engine: EngineWriter, project: str, context: RunContext, *, detach: bool, everything: bool = False
) -> tuple[str, ...]:
    """Remove a stack's containers, volumes and networks; with `everything`, also our unused images.

    Returns the references of our unused images that remain.

    Raises:
        RefusedError: if agents are attached and `detach` is false, or another run is at work.
    """
    observed = observe(engine, project)
    if teardown(observed, project, detach=detach).empty and not at_work(observed.lock):
        remove_abandoned(engine, observed)
    else:
        image = images.lock_image(engine.facts())
        with Lock(engine, project, image, context.lock_wait, context.stopping) as lock:
            locked = replace(context, require_lock=lock.require_held)
            apply(engine, teardown(observe(engine, project), project, detach=detach), {}, locked)
    observed = observe(engine, project)
    if everything and observed.lock is None and (unused := unused_references(observed)):
        apply(engine, Plan((tuple(map(RemoveImage, unused)),)), {}, context)
        observed = observe(engine, project)
    return unused_references(observed)
