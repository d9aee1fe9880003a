"""apply: perform a plan's steps on an engine. It decides only whether a step has failed.

A failure before the point of no return triggers the plan's rollback, unless another run has taken the lock: that
run may use the containers created here.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn, assert_never

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import (
    DiskFullError,
    EngineError,
    FirewallError,
    LockLostError,
    NotProvenError,
    StoppedError,
    after,
)
from clawker_fw.fwctl import Helper
from clawker_fw.model.containers import ContainerView
from clawker_fw.model.observed import Observed
from clawker_fw.model.probes import Probe
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import steps
from clawker_fw.reconcile.containers import create_from, last_words
from clawker_fw.reconcile.handed_over import hand_over
from clawker_fw.reconcile.one_shot import ACCEPT_FRAMES, DROPS_FRAMES, require_kernel
from clawker_fw.reconcile.publishing import publish
from clawker_fw.reconcile.steps import Plan, Stage, Step
from clawker_fw.stack.container import HELPER
from clawker_fw.stack.image_tar import BuiltImage

_ASK_EVERY = 0.03
_NOTICE_SECONDS = 2.0
"""How long an engine may take to notice that a program has exited."""
_ANSWER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a step from 0.0 to 1.0, with a note for people. A finished step took `seconds`."""

    step: Step
    share: float
    note: str = ""
    seconds: float = 0.0


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class RunContext:
    """The callbacks and limits of a run.

    `lock_wait` is in seconds. `require` raises if the stack, as compared under the lock, must not be changed, and
    `require_lock` if the lock is lost. `wall` is the time in seconds since 1970, by which rules expire. `give`
    gets Envoy's container and sends it the secrets.
    """

    on_progress: ProgressCallback
    stopping: Callable[[], bool] = lambda: False
    lock_wait: float = 0.0
    require: Callable[[Observed], None] = lambda _: None
    wall: Callable[[], float] = time.time
    require_lock: Callable[[], None] = lambda: None
    give: Callable[[str], object] = lambda _: None


def apply(engine: EngineWriter, plan: Plan, built: Mapping[Sibling, BuiltImage], context: RunContext) -> None:
    """Perform a plan.

    Raises:
        NotProvenError: if a change could not be verified. After a rollback, the error says what serves now.
        EngineError: if the engine failed. The next run completes the rest.
        StoppedError: if the user asked to stop. The next run completes the rest.
    """
    performer = _Performer(engine, built, context)
    for position, stage in enumerate(plan.stages):
        try:
            performer.side_by_side(stage, plan.stages[position + 1 :])
        except BaseException as error:  # any failure: remove what was created for nothing
            performer.give_up(plan if position in plan.undoable else None, error)
            raise


class _Performer:
    def __init__(self, engine: EngineWriter, built: Mapping[Sibling, BuiltImage], context: RunContext) -> None:
        self._engine = engine
        self._built = built
        self._context = context
        self._made: dict[str, str] = {}
        """Ids of the containers created here, by name. A rollback removes only these."""
        self._stopped: set[str] = set()
        self._networks_made: set[str] = set()
        self._networks_removed: set[str] = set()

    def _require_going(self) -> None:
        if self._context.stopping():
            raise StoppedError(
                "stopped",
                "Stopped after the current step, as requested.",
                hint="Run the command again: it completes the remaining steps.",
            )

    def side_by_side(self, stage: Stage, later: Sequence[Stage]) -> None:
        """Perform a stage's steps in parallel. When all have ended, raise their failures as one error."""
        lanes = [step.steps if isinstance(step, steps.InTurn) else (step,) for step in stage]
        after_stage = [step for later_stage in later for step in later_stage]
        with ThreadPoolExecutor(len(lanes)) as pool:
            running = [pool.submit(self._in_turn, lane, after_stage) for lane in lanes]
        _raise_failures(running)

    def _in_turn(self, lane: tuple[Step, ...], later: Sequence[Step | steps.InTurn]) -> None:
        """Begin each step when the previous one is far enough. After a failure, begin no more."""
        begun: list[Future[None]] = []
        with ThreadPoolExecutor(len(lane)) as pool:
            for position, step in enumerate(lane):
                begun.append(self._begin(pool, step, [*lane[position:], *later]))
                if begun[-1].done() and begun[-1].exception():
                    break
        _raise_failures(begun)

    def _begin(
        self, pool: ThreadPoolExecutor, step: Step, remaining: Sequence[Step | steps.InTurn]
    ) -> Future[None]:
        """Begin a step, unless the lock is lost or the user asked to stop, and wait until it is far enough."""
        enough = threading.Event()

        def perform() -> None:
            self._context.require_lock()
            try:
                self._require_going()
                self._perform(step, enough.set)
            except StoppedError as stopped:  # before the step, or in it
                stopped.context = tuple(f"left: {steps.describe(left)}" for left in remaining)
                raise

        performing = pool.submit(perform)
        performing.add_done_callback(lambda _: enough.set())
        enough.wait()
        return performing

    def give_up(self, plan: Plan | None, error: BaseException) -> None:
        """Roll back the plan if possible, and add to the error what serves now.

        If a rollback step fails, the next run repeats it. A run that lost the lock, or can't check it, undoes
        nothing: the new holder may already serve with the containers created here, and its changes may have caused
        the error.

        Raises:
            LockLostError: in place of the error, if another run has taken the lock.
        """
        done = [step for step in plan.rollback if self._has_done(step)] if plan else []
        try:
            with suppress(EngineError):  # whether it is held is asked again before each removal
                self._context.require_lock()
            for step in done:
                with after(error, "the rollback failed as well"):
                    self._context.require_lock()
                    if isinstance(step, steps.Remove):
                        step = replace(step, container=self._made[step.container])  # noqa: PLW2901 - by its id
                    self._perform(step)
        except LockLostError as lost:
            raise lost from error
        if plan and isinstance(error, FirewallError):
            self._add_outcome(plan, error)

    def _has_done(self, step: steps.Undo) -> bool:
        """Whether this run did what the rollback step undoes. Anything else may belong to another run."""
        match step:
            case steps.Remove():
                return step.container in self._made
            case steps.RemoveNetwork():
                return step.name in self._networks_made
            case steps.CreateNetwork():
                return step.spec.name in self._networks_removed
            case steps.Reattach():
                return step.container in self._stopped
            case _:
                assert_never(step)

    def _add_outcome(self, plan: Plan, error: FirewallError) -> None:
        """Add to an error what the engine reports after a rollback."""
        try:
            left = [name for name, identity in self._made.items() if self._engine.container(identity)]
            silent = [sibling for sibling, container in plan.before if not self._answers(container)]
        except EngineError as trouble:
            message = f"What serves now could not be read: {trouble.in_one_line}"
        else:
            undone = f"{' and '.join(left)} could not be removed: the next run does it."
            message = f"{undone if left else 'What was created has been removed.'} {_serving(plan, silent)}"
        if error.hint:
            error.context = (*error.context, message)
        else:
            error.hint = message

    def _answers(self, container: str) -> bool:
        view = self._engine.container(container)
        probe = self._ask(container) if view and view.running else None
        return probe is not None and not probe.error

    def _perform(self, step: Step, enough: Callable[[], None] = lambda: None) -> None:
        """Perform a step. A commit calls `enough` before it is done."""
        began = time.monotonic()
        self._context.on_progress(Progress(step, 0.0))
        note = self._do(step, enough)
        self._context.on_progress(Progress(step, 1.0, note, time.monotonic() - began))

    def _do(self, step: Step, enough: Callable[[], None]) -> str:  # noqa: C901, PLR0912, PLR0915 - it is a table
        """Perform a step, and return a note on how it ended, or an empty string."""
        engine, resolver_image = self._engine, self._built.get(Sibling.COREDNS)
        match step:
            case steps.ProvideImage():
                self._load_or_pull(step)
            case steps.Examine():
                require_kernel(engine, step.project, step.spec, resolver_image)
            case steps.CreateNetwork():
                engine.create_network(step.spec)
                self._networks_made.add(step.spec.name)
            case steps.RemoveNetwork():
                engine.remove_network(step.network)
                self._networks_removed.add(step.name)
            case steps.RemoveImage():
                engine.remove_image(step.reference)
            case steps.RemoveVolume():
                engine.remove_volume(step.volume)
            case steps.Detach():
                with suppress(DiskFullError):  # it is off, and the engine had no room to write that down
                    engine.disconnect(step.network, step.container)
            case steps.Create():
                own = (image for image in self._built.values() if image.reference == step.spec.image)
                self._made[step.spec.name] = create_from(engine, step.spec, next(own, None))
                engine.start(self._made[step.spec.name])
            case steps.Verify():
                self._verify(step)
            case steps.Commit():
                self._commit(step, enough)
            case steps.GiveSecrets():
                self._context.give(step.container)
            case steps.ClaimAddress():
                Helper(engine, step.container).claim(step.seconds)
            case steps.ReleaseAddress():
                Helper(engine, step.container).release()
            case steps.AwaitTtl():
                time.sleep(step.seconds)
            case steps.Drain():
                return self._drain(step)
            case steps.Remove():
                if step.heir:
                    with suppress(EngineError):  # a convenience, for which no replacement may fail
                        hand_over(engine, step.container, step.heir)
                engine.remove(step.container)
            case steps.Start():
                engine.start(step.container)
                self._await_answer(step.container)
            case steps.Stop():
                self._stopped.add(step.container)  # also if the engine fails while it does
                engine.stop(step.container)
            case steps.Unpause():
                engine.unpause(step.container)
                self._await_answer(step.container)
            case steps.Reattach():
                engine.stop(step.container)
                for network, address in step.networks:
                    with suppress(EngineError):  # usually it is on none; it may remember one that is gone
                        engine.disconnect(network, step.container)
                    engine.connect(network, step.container, address)
                engine.start(step.container)
                self._await_answer(step.container)
            case steps.Rename():
                engine.rename(step.container, step.name)
            case steps.Publish():
                publish(engine, step.spec, resolver_image)
            case _:
                assert_never(step)
        return ""

    def _load_or_pull(self, step: steps.ProvideImage) -> None:
        def progress(share: float) -> None:
            self._require_going()
            self._context.on_progress(Progress(step, min(share, 0.99)))

        if step.bundled:
            image = self._built[step.sibling]
            self._engine.load_image(image.archive(), image.archive_size, progress)
        else:
            self._engine.pull_image(step.reference, progress)

    def _verify(self, step: steps.Verify) -> None:
        probe: Probe | None = None
        unseen: list[str] = []
        end = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < end:
            self._require_going()
            probe = self._ask(step.container, starting=True)
            if probe and not _shortcomings(probe, step) and not (unseen := self._unseen(step)):
                return
            if probe is None and not self._alive(step.container):
                break
            time.sleep(_ASK_EVERY)
        raise NotProvenError(
            "replacement-not-ready",
            f"The new {step.sibling} did not become ready.",
            context=[*_shortcomings(probe, step), *unseen, *last_words(self._engine, step.container)],
            hint=ACCEPT_FRAMES if any(DROPS_FRAMES in problem for problem in unseen) else "",
        )

    def _unseen(self, step: steps.Verify) -> list[str]:
        """Return what agents would wrongly see of a new Envoy. Another one would not look better."""
        if not step.prober:
            return []
        try:
            problems = Helper(self._engine, step.prober).agents_see(step.place)
        except EngineError as error:
            return [f"agents' view: {error}", *last_words(self._engine, step.prober)]
        return [f"agents would see: {problem}" for problem in problems]

    def _ask(self, container: str, *, starting: bool = False) -> Probe | None:
        try:
            return Helper(self._engine, container).probe(starting=starting)
        except EngineError:
            return None  # not started yet, or gone: the caller checks which

    def _alive(self, container: str) -> bool:
        view = self._engine.container(container)
        return view is not None and view.status in {"created", "running"}

    def _commit(self, step: steps.Commit, taken: Callable[[], None]) -> None:
        """Commit files. `taken` is called when the program serves them, before they are verified."""
        before = self._engine.container(step.container)
        try:
            result = Helper(self._engine, step.container).commit(step.files, taken)
        except EngineError as error:
            self._require_new_start(step, before, error)
        if result is None:
            raise NotProvenError(
                "commit-unanswered",
                f"{step.sibling} did not confirm that it loaded the new files.",
                context=last_words(self._engine, step.container),
                hint="`clawker-fw drift` shows what it serves.",
            )
        if result.committed:
            return
        context = [result.reason or "no reason", *last_words(self._engine, step.container)]
        if result.hung:
            self._restart(step, _ended_program(step.sibling, context))
        refused = ", ".join(result.refused or ["everything"])
        raise NotProvenError(
            "commit-rejected",
            f"{step.sibling} rejected the new files ({refused}); the old ones have been restored.",
            context=context,
            hint=f"{step.sibling} serves with its previous files. `clawker-fw drift` shows the state.",
        )

    def _restart(self, step: steps.Commit, error: NotProvenError) -> NoReturn:
        """Kill a hung program from outside, so that it restarts with the restored files, and raise the error."""
        context = error.context
        with after(error, "its restart failed as well"):
            self._engine.stop(step.container, 0)
            self._engine.start(step.container)
            self._await_answer(step.container)
        if error.context != context:
            error.message = f"The new files made {step.sibling} exit or hang; the old ones have been restored."
            error.hint = f"{step.sibling} does not serve: run `clawker-fw run --force-recreate`."
        raise error

    def _require_new_start(self, step: steps.Commit, before: ContainerView | None, error: EngineError) -> NoReturn:
        """Raise the error that explains why a commit's helper did not answer.

        If the new files made the program exit, its helper was killed too. The engine then restarts the container
        with the files that were verified last.
        """
        end = time.monotonic() + _NOTICE_SECONDS
        while not self._has_ended(before):
            if time.monotonic() > end:
                raise error
            time.sleep(_ASK_EVERY)
        words = last_words(self._engine, step.container)
        self._await_answer(step.container, restarting=True)
        raise _ended_program(step.sibling, words) from error

    def _has_ended(self, before: ContainerView | None) -> bool:
        if before is None or (now := self._engine.container(before.id)) is None:
            return False
        return not now.running or now.started != before.started

    def _drain(self, step: steps.Drain) -> str:
        """Wait for open connections to end, and return a note on the rest, which the next step cuts."""
        left = 0

        def on_connections(number: int) -> None:
            nonlocal left
            self._require_going()
            left = number
            self._context.on_progress(Progress(step, 0.5, f"{_connections(left)} left"))

        try:
            if step.helper:
                self._engine.put_files(step.container, {HELPER: step.helper})
            Helper(self._engine, step.container).drain(step.seconds, on_connections)
        except EngineError as error:
            # The container is about to be removed and another one serves, so a failed drain just ends early.
            ended = f"ended early: {error}"
            return f"{ended} {_connections(left)} cut" if left else ended
        return f"{_connections(left)} cut" if left else ""

    def _await_answer(self, container: str, *, restarting: bool = False) -> None:
        """Wait until a started program answers. With `restarting`, the engine is about to restart it."""
        end = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < end:
            probe = self._ask(container, starting=True)
            if probe and not probe.error:
                return
            if probe is None and not restarting and not self._alive(container):
                break
            time.sleep(_ASK_EVERY)
        raise NotProvenError(
            "not-answering",
            f"The firewall container {container} was started but does not answer.",
            context=last_words(self._engine, container),
            hint="Replace it with `clawker-fw run --force-recreate`.",
        )


def _ended_program(sibling: Sibling, context: Sequence[str]) -> NotProvenError:
    return NotProvenError(
        "commit-ended-program",
        f"The new files made {sibling} exit or hang; it has restarted with the old ones.",
        context=context,
        hint=f"{sibling} serves with its previous files again. `clawker-fw drift` shows the state.",
    )


def _raise_failures(futures: Iterable[Future[None]]) -> None:
    """Raise the first failure of ended steps, or if all were only stopped, one error with the context of all."""
    stops: list[StoppedError] = []
    for error in (future.exception() for future in futures):
        if isinstance(error, StoppedError):
            stops.append(error)
        elif error:
            raise error
    if stops:
        stops[0].context = tuple(dict.fromkeys(line for stop in stops for line in stop.context))
        raise stops[0]


def _serving(plan: Plan, silent: Sequence[Sibling]) -> str:
    """Return what serves after a rollback, if the `silent` siblings no longer answer."""
    if silent:
        verb = "does" if len(silent) == 1 else "do"
        return f"The former {' and '.join(silent)} {verb} not answer: agents may reach nothing. Run it again."
    if len(plan.before) == len(Sibling):
        return f"The former {' and '.join(sibling for sibling, _ in plan.before)} still serve."
    return "Nothing serves now."


def _connections(number: int) -> str:
    return f"{number} connection" if number == 1 else f"{number} connections"


def _shortcomings(probe: Probe | None, step: steps.Verify) -> list[str]:
    if probe is None:
        return ["not running"]
    if probe.error:
        return [f"not answering: {probe.error}"]
    expected = step.live if probe.live not in step.later else probe.live
    return [
        *(f"not live: {name}" for name, digest in expected.items() if probe.live.get(name) != digest),
        *(f"network: {text}" for text in probe.network),
        *([f"unhealthy: {probe.unhealthy}"] if probe.unhealthy else []),
    ]
