"""A run that fails, or is killed, anywhere: what served goes on serving, and the next run finishes."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from clawker_fw import convergence, pipeline
from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.engine.port import NOTHING
from clawker_fw.errors import (
    ConflictError,
    EngineError,
    FirewallError,
    LockLostError,
    NotProvenError,
    RefusedError,
    StoppedError,
)
from clawker_fw.model import ContainerSpec, ContainerView, Files, Shape, Sibling, Verdict
from clawker_fw.reconcile import lock
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.reconcile.steps import ConvergeOptions, Create, Verify
from clawker_fw.reconcile.steps import Release as ReleaseAddress
from clawker_fw.report import documents
from clawker_fw.stack import image_tar, images, labels
from clawker_fw.stack.files import public
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.waiting import until


def _upgraded(engine: MemoryEngine, release: Release) -> Blueprint:
    return stacks.blueprint(engine.facts(), "a.test", "b.test", release=release, otel={"infra_port": 1})


class NeverReady(MemoryEngine):
    """An engine in which replacements start and never answer."""

    def __init__(self) -> None:
        """Begin broken."""
        super().__init__()
        self._broken = True

    def heal(self) -> None:
        """Let replacements answer from now on."""
        self._broken = False

    def start(self, container: str) -> None:
        """Start a container whose program stays silent when it is a replacement."""
        super().start(container)
        inside = self.inside(container)
        if self._broken and inside.spec.name.endswith("-next"):
            inside.silent = "connection refused"
            inside.log.append("the program's last words")


def test_a_replacement_that_never_answers_is_taken_back(release: Release) -> None:
    """The old siblings are untouched, and the error carries the program's last words."""
    engine = NeverReady()
    first = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, first)
    before = {name: engine.inside(name).id for name in ("clawker-envoy", "clawker-coredns")}
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, first, ConvergeOptions(0, replace_all=True))
    assert caught.value.code == "replacement-not-ready"
    assert "log: the program's last words" in caught.value.context
    assert {name: engine.inside(name).id for name in before} == before
    assert stacks.found(engine, first) == set()


def test_a_failed_attempt_is_remembered_until_one_succeeds(release: Release) -> None:
    """Who looks next is told that what is pending has been tried, and why it failed; once current, nothing is."""
    engine = NeverReady()
    stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test", release=release))
    wanted = _upgraded(engine, release)
    assert pipeline.compare(engine, wanted).failed_attempt is None
    with pytest.raises(NotProvenError):
        stacks.converged(engine, wanted)
    failed = pipeline.compare(engine, wanted).failed_attempt
    assert failed
    assert (failed.code, failed.context[-1]) == ("replacement-not-ready", "log: the program's last words")
    document = documents.drift_document(pipeline.compare(engine, wanted).diff, failed, busy=None, warnings=())
    assert document["failed_attempt"]["code"] == "replacement-not-ready"

    engine.heal()
    assert stacks.converged(engine, wanted).failed_attempt is None
    for name in ("clawker-envoy", "clawker-coredns"):
        bare = labels.sibling_labels("clawker", Sibling(name.removeprefix("clawker-")), 0)
        engine.inside(name).spec = replace(engine.inside(name).spec, labels=bare)
    assert pipeline.compare(engine, wanted).failed_attempt is None


class Refusing(MemoryEngine):
    """An engine whose Envoy refuses what is committed."""

    def put_files(self, container: str, files: Files) -> None:
        """Stage Envoy's listeners without a version, as an unreadable file would be."""
        super().put_files(container, files)
        staged = self.inside(container).files
        if "stage/hot/lds/listeners.json" in staged:
            staged["stage/hot/lds/listeners.json"] = public(b"{}")
            record = staged["stage/commit.json"].content.decode()
            parsed = json.loads(record)
            for file in parsed["files"]:
                if file["path"] == "lds/listeners.json":
                    file["sha256"] = hashlib.sha256(b"{}").hexdigest()
            staged["stage/commit.json"] = public(json.dumps(parsed).encode())


class Hanging(MemoryEngine):
    """An engine whose Envoy answers no more once it has read what is committed, until it is started anew."""

    def run_helper(self, container: str, arguments: Sequence[str], on_line: Callable[[Any], None]) -> None:
        """Put the old files back, and say that the program is silent."""
        if arguments != ["commit"] or self.inside(container).spec.name != "clawker-envoy":
            super().run_helper(container, arguments, on_line)
            return
        self.inside(container).silent = "no answer"
        answer = {"committed": False, "rejected": [], "missing": ["listeners"], "reason": "silent"}
        on_line({**answer, "hung": True})

    def start(self, container: str) -> None:
        """Answer again."""
        super().start(container)
        self.inside(container).silent = ""


class Ending(Hanging):
    """An engine whose Envoy is ended by what is committed, and with it the helper; both start again."""

    def run_helper(self, container: str, arguments: Sequence[str], on_line: Callable[[Any], None]) -> None:
        """End, and start again."""
        if arguments != ["commit"] or self.inside(container).spec.name != "clawker-envoy":
            super().run_helper(container, arguments, on_line)
            return
        self.stop(container)
        self.start(container)
        raise EngineError("helper-failed", "fwctl commit failed: it ended with 137.")


@pytest.mark.parametrize(("kind", "code"), [(Hanging, "commit-rejected"), (Ending, "commit-ended-program")])
def test_a_file_that_stops_a_program_is_no_outage(kind: type[Hanging], code: str, release: Release) -> None:
    """A program that hangs is started anew, one that has ended starts again: with what was live before."""
    engine = kind()
    first = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, first)
    before = engine.inside("clawker-envoy")
    identity, started = before.id, before.started
    changed = stacks.blueprint(engine.facts(), "b.test", release=release)
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, changed)
    assert caught.value.code == code
    after = engine.inside("clawker-envoy")
    assert (after.id, after.status, after.silent) == (identity, "running", "")
    assert after.started != started
    assert {layer for _, layer, *_ in stacks.found(engine, first)} <= {"hot"}


def test_a_refused_file_keeps_the_old_rules(release: Release) -> None:
    """What was live is live still, in Envoy and in CoreDNS, and the error says who refused what."""
    engine = Refusing()
    first = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, first)
    changed = stacks.blueprint(engine.facts(), "b.test", release=release)
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, changed)
    assert caught.value.code == "commit-rejected"
    assert "listeners" in caught.value.message
    assert stacks.found(engine, first) == set()


@pytest.fixture
def lock_image(memory: MemoryEngine, release: Release) -> image_tar.BuiltImage:
    """The image of the lock, loaded."""
    image = images.lock_image(memory.facts(), release.digests)
    memory.load_image(image.archive(), 1, lambda _: None)
    return image


def hold(engine: MemoryEngine, image: image_tar.BuiltImage, **changes: str) -> None:
    """Have somebody else hold the lock, somewhere."""
    held_by = dict(lock.holder()) | {f"{labels.PREFIX}lock.{name}": text for name, text in changes.items()}
    engine.create_container(
        ContainerSpec(
            "clawker-lock",
            image.reference,
            labels.ownership_labels("clawker") | held_by,
            Shape((), (), {}),
            {"lease": public(b"0")},
        )
    )


def test_the_lock_of_a_living_process_is_respected(
    memory: MemoryEngine, release: Release, lock_image: image_tar.BuiltImage
) -> None:
    """Two runs at once: the second one is refused, and told who is at work."""
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    with lock.Lock(memory, "clawker", lock_image), pytest.raises(RefusedError) as caught:
        stacks.converged(memory, wanted)
    assert caught.value.code == "lock-held"
    assert any("process" in line for line in caught.value.context)
    stacks.converged(memory, wanted)
    assert memory.container("clawker-lock") is None


def test_waiting_for_the_lock_can_be_stopped(
    memory: MemoryEngine, lock_image: image_tar.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is heard by a run that waits its turn; nothing has been done then."""
    monkeypatch.setattr(lock, "_is_alive", lambda _: True)
    hold(memory, lock_image, process="1 0")
    asked = iter([False, False, True])
    with (
        pytest.raises(StoppedError) as caught,
        lock.Lock(memory, "clawker", lock_image, 1000, lambda: next(asked)),
    ):
        pass
    assert caught.value.exit_code == 130
    assert [each.name for each in memory.listing()] == ["clawker-lock"]


@pytest.mark.parametrize("process", ["999999999 1", "1 0", "", "x", "\u00b2 1", "9" * 5000 + " 1"])
def test_the_lock_of_a_process_that_is_gone_is_taken_over(
    process: str, memory: MemoryEngine, release: Release, lock_image: image_tar.BuiltImage
) -> None:
    """A run that was killed does not keep others out."""
    hold(memory, lock_image, process=process)
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


def test_a_lock_that_could_not_be_given_back_is_taken_over_by_the_same_process(
    memory: MemoryEngine, release: Release, lock_image: image_tar.BuiltImage
) -> None:
    """An engine that went away under a run does not keep out the next one of a process that lives on."""
    hold(memory, lock_image)
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


class Renewed(MemoryEngine):
    """An engine on which somebody elsewhere renews their lease whenever nobody looks."""

    def files(self, container: str, known: Files = NOTHING) -> Files:
        """Return the files, and change the lease after that."""
        found = super().files(container, known)
        if "lease" in found:
            self.put_files(container, {"lease": public(found["lease"].content + b".")})
        return found


def test_the_lock_of_another_machine_is_respected_while_it_is_renewed(release: Release) -> None:
    """Whether a process elsewhere lives is seen by its lease."""
    engine = Renewed()
    image = images.lock_image(engine.facts(), release.digests)
    engine.load_image(image.archive(), 1, lambda _: None)
    hold(engine, image, host="elsewhere 1")
    with pytest.raises(RefusedError) as caught:
        stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test", release=release))
    assert "elsewhere" in caught.value.context[1]
    assert "--lock-wait" in caught.value.hint


def test_the_lock_of_another_machine_is_taken_over_when_its_lease_ends(
    memory: MemoryEngine, release: Release, lock_image: image_tar.BuiltImage
) -> None:
    """A holder that is not heard of for a whole lease is gone."""
    hold(memory, lock_image, host="elsewhere 1")
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


def test_a_run_whose_lock_was_taken_over_stops(
    memory: MemoryEngine, release: Release, lock_image: image_tar.BuiltImage
) -> None:
    """Who was silent for too long does not go on beside the one who took over."""
    del release
    with lock.Lock(memory, "clawker", lock_image) as held:
        held.require_held()
        memory.remove("clawker-lock")
        hold(memory, lock_image, host="elsewhere 1")
        with pytest.raises(RefusedError) as caught:
            held.require_held()
    assert caught.value.code == "lock-lost"
    assert memory.inside("clawker-lock")


def test_a_lease_is_renewed_while_its_holder_works(
    memory: MemoryEngine, lock_image: image_tar.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others see the lease change, whatever their clocks say."""
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.01)
    with lock.Lock(memory, "clawker", lock_image):
        until(lambda: memory.files("clawker-lock").get("lease", public(b"1")) != public(b"1"))


def test_a_renewal_does_not_wait_for_the_one_before(
    memory: MemoryEngine, lock_image: image_tar.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an engine that takes longer to take a sign of life than a lease lasts, they arrive at their interval."""
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.01)
    stuck = threading.Event()
    calls = count()

    def put_files(container: str, files: Files) -> None:
        if next(calls) == 0:
            stuck.wait(20)
        MemoryEngine.put_files(memory, container, files)

    monkeypatch.setattr(memory, "put_files", put_files)
    try:
        with lock.Lock(memory, "clawker", lock_image):
            until(lambda: memory.files("clawker-lock").get("lease", public(b"")).content not in {b"", b"1"})
    finally:
        stuck.set()


@pytest.mark.parametrize(
    ("stated", "answer", "silent"),
    [
        ("", 0, 10),
        ("x", 0, 10),
        ("3", 0, 10),
        ("40", 0, 40),
        ("9" * 400, 0, 120),
        ("", 8, 18),
        ("40", 8, 48),
    ],
)
def test_how_long_a_holder_may_be_silent(
    stated: str, answer: float, silent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it has said, and as the engine takes to answer whoever asks; no label makes that endless."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=lambda: clock.now))
    engine = MemoryEngine()
    engine.retag("x", "sha256:x")
    lease = {"dev.clawker.lock.lease": stated} if stated else {}
    held = engine.container(engine.create_container(ContainerSpec("clawker-lock", "x", lease, Shape((), (), {}))))
    assert held
    watch = lock._LeaseWatch()  # noqa: SLF001 - by its own clock
    assert not watch.silent(held, b"1", clock.now)
    clock.now = silent - 0.1
    assert not watch.silent(held, b"1", clock.now - answer)
    clock.now = silent + 0.1
    assert watch.silent(held, b"1", clock.now - answer)
    assert not watch.silent(held, b"2", clock.now)


def test_a_lease_is_as_long_as_the_engine_is_slow(
    memory: MemoryEngine, lock_image: image_tar.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits is told by the holder, who knows how long it waits for answers itself."""
    clock = iter([0.0, 9.0])
    last = SimpleNamespace(at=9.0)

    def monotonic() -> float:
        last.at = next(clock, last.at)
        return float(last.at)

    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=monotonic, sleep=lambda _: None))
    with lock.Lock(memory, "clawker", lock_image):
        assert memory.inside("clawker-lock").spec.labels["dev.clawker.lock.lease"] == "36"


def test_a_wait_ends_when_the_lock_is_free(
    memory: MemoryEngine, lock_image: image_tar.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With time to wait, the next in line gets the lock as soon as it is given back."""
    parent = os.getppid()
    hold(memory, lock_image, process=f"{parent} {lock._started(parent)}")  # noqa: SLF001 - as its labels have it
    looks = count()

    def container(name: str) -> ContainerView | None:
        if next(looks) == 3:
            memory.remove("clawker-lock")
        return MemoryEngine.container(memory, name)

    monkeypatch.setattr(memory, "container", container)
    with lock.Lock(memory, "clawker", lock_image, wait=1000):
        pass


def test_a_run_that_has_lost_its_turn_takes_nothing_of_another_s_away(release: Release) -> None:
    """It was suspended; another one took its lock over, made what was missing, and is done."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)

    def on_progress(progress: Progress) -> None:
        if progress.share >= 1 and isinstance(progress.step, Verify) and "lock" not in lost:
            lost["lock"] = True
            for name in ("clawker-lock", "clawker-envoy", "clawker-coredns"):
                engine.remove(name)
            stacks.converged(engine, wanted)

    lost: dict[str, bool] = {}
    with pytest.raises(FirewallError):
        convergence.converge(engine, lambda: wanted, ConvergeOptions(0), convergence.RunContext(on_progress))
    assert stacks.found(engine, wanted) == set()


def test_a_run_that_has_lost_the_lock_undoes_nothing(release: Release) -> None:
    """It was suspended after it had made both siblings; another one adopted them, and they serve."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)
    adopted: dict[str, str] = {}

    def on_progress(progress: Progress) -> None:
        if progress.share >= 1 and isinstance(progress.step, Create) and len(engine.listing()) > 2 and not adopted:
            engine.remove("clawker-lock")
            stacks.converged(engine, wanted)
            adopted.update({each.name: each.id for each in engine.listing()})

    with pytest.raises(LockLostError):
        convergence.converge(engine, lambda: wanted, ConvergeOptions(0), convergence.RunContext(on_progress))
    assert adopted
    assert {each.name: each.id for each in engine.listing()} == adopted
    assert stacks.found(engine, wanted) == set()
    assert pipeline.compare(engine, wanted).failed_attempt is None


def test_what_a_run_without_the_lock_has_found_means_nothing(release: Release) -> None:
    """It goes on with an answer from before it was suspended: that is no word on what serves now."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.step, Verify):
            engine.remove("clawker-lock")
            stacks.converged(engine, wanted)
            raise NotProvenError("replacement-not-ready", "It did not answer, then.")

    with pytest.raises(LockLostError):
        convergence.converge(engine, lambda: wanted, ConvergeOptions(0), convergence.RunContext(on_progress))
    assert stacks.found(engine, wanted) == set()
    assert pipeline.compare(engine, wanted).failed_attempt is None


def test_a_run_that_can_not_tell_whose_turn_it_is_undoes_nothing(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that does not say who holds the lock may have given it to somebody else."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)

    def unsaid(name: str) -> ContainerView | None:
        raise EngineError("engine-unreachable", f"The engine did not answer when asked about {name}.")

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.step, Create):
            monkeypatch.setattr(engine, "container", unsaid)

    with pytest.raises(EngineError) as caught:
        convergence.converge(engine, lambda: wanted, ConvergeOptions(0), convergence.RunContext(on_progress))
    assert any("the rollback failed as well" in line for line in caught.value.context)
    assert {"clawker-envoy", "clawker-coredns"} <= {each.name for each in engine.listing()}


def test_a_stranger_with_the_name_of_a_replacement_is_left_alone(release: Release) -> None:
    """It came when the look was over; the run fails, and takes away only what it has made."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, wanted)
    told: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if not told:
            engine.create_container(stacks.bare_container("clawker-envoy-next", wanted))
        told.append(progress)

    with pytest.raises(ConflictError):
        convergence.converge(
            engine, lambda: wanted, ConvergeOptions(0, replace_all=True), convergence.RunContext(on_progress)
        )
    assert [each.name for each in engine.listing()] == ["clawker-coredns", "clawker-envoy", "clawker-envoy-next"]


def test_everything_that_is_left_after_a_stop_is_named(release: Release) -> None:
    """Both siblings are relieved side by side; what either has not come to is left."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, wanted)
    started: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.step, ReleaseAddress):
            started.append(progress)

    with pytest.raises(StoppedError) as caught:
        convergence.converge(
            engine,
            lambda: wanted,
            ConvergeOptions(0, replace_all=True),
            convergence.RunContext(on_progress, lambda: bool(started)),
        )
    left = "\n".join(caught.value.context)
    assert "stop and remove clawker-envoy" in left
    assert "stop and remove clawker-coredns" in left
    assert len(set(caught.value.context)) == len(caught.value.context)


def _itself(wanted: Blueprint) -> Blueprint:
    return wanted


def _after(told: list[Progress], point: int) -> bool:
    return len(told) >= point


def test_stopping_finishes_the_step_in_hand(release: Release) -> None:
    """Before an agent could notice, what was made is taken away; afterwards, what is left is named."""
    for point in range(1, 8):
        engine = MemoryEngine()
        first = stacks.blueprint(engine.facts(), "a.test", release=release)
        stacks.converged(engine, first)
        told: list[Progress] = []
        run_context = convergence.RunContext(told.append, partial(_after, told, point))
        with pytest.raises(StoppedError) as caught:
            convergence.converge(
                engine, partial(_itself, first), ConvergeOptions(0, replace_all=True), run_context
            )
        assert caught.value.exit_code == 130
        assert caught.value.context[0].startswith("left: ")
        assert stacks.serving(engine), point
        stacks.converged(engine, first)
        assert stacks.found(engine, first) == set(), point
