"""After a failed or killed run, the old siblings keep serving, and the next run completes the work."""

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
from clawker_fw.reconcile.plan import ANNOUNCE_SECONDS
from clawker_fw.reconcile.steps import AwaitTtl, Claim, ConvergeOptions, Create, Verify
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
        """Start broken."""
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
    """The old siblings are untouched, and the error contains the program's last output."""
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
    """The next comparison shows the failed attempt and its reason, until the stack is current."""
    engine = NeverReady()
    stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test", release=release))
    wanted = _upgraded(engine, release)
    assert pipeline.compare(engine, wanted).failed_attempt is None
    with pytest.raises(NotProvenError):
        stacks.converged(engine, wanted)
    failed = pipeline.compare(engine, wanted).failed_attempt
    assert failed
    assert (failed.code, failed.context[-1]) == ("replacement-not-ready", "log: the program's last words")
    diff = pipeline.compare(engine, wanted).diff
    document = documents.drift_document(
        diff, failed, None, verdict=diff.verdict, agents=(), busy=None, warnings=()
    )
    assert document["failed_attempt"]["code"] == "replacement-not-ready"

    engine.heal()
    assert stacks.converged(engine, wanted).failed_attempt is None
    for name in ("clawker-envoy", "clawker-coredns"):
        bare = labels.sibling_labels("clawker", Sibling(name.removeprefix("clawker-")), 0)
        engine.inside(name).spec = replace(engine.inside(name).spec, labels=bare)
    assert pipeline.compare(engine, wanted).failed_attempt is None


class Refusing(MemoryEngine):
    """An engine whose Envoy rejects every commit."""

    def put_files(self, container: str, files: Files) -> None:
        """Write Envoy's listeners without a version, like an unreadable file."""
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
    """An engine whose Envoy hangs after it has read a commit, until it is restarted."""

    def run_helper(self, container: str, arguments: Sequence[str], on_line: Callable[[Any], None]) -> None:
        """Restore the old files, and report that the program is silent."""
        if arguments != ["commit"] or self.inside(container).spec.name != "clawker-envoy":
            super().run_helper(container, arguments, on_line)
            return
        self.inside(container).silent = "no answer"
        answer = {"committed": False, "rejected": [], "missing": ["listeners"], "reason": "silent"}
        on_line({**answer, "hung": True})

    def start(self, container: str) -> None:
        """Let it answer again."""
        super().start(container)
        self.inside(container).silent = ""


class Ending(Hanging):
    """An engine in which a commit ends Envoy and the helper, and both restart."""

    def run_helper(self, container: str, arguments: Sequence[str], on_line: Callable[[Any], None]) -> None:
        """End the program, and restart it."""
        if arguments != ["commit"] or self.inside(container).spec.name != "clawker-envoy":
            super().run_helper(container, arguments, on_line)
            return
        self.stop(container)
        self.start(container)
        raise EngineError("helper-failed", "fwctl commit failed: it ended with 137.")


@pytest.mark.parametrize(("kind", "code"), [(Hanging, "commit-rejected"), (Ending, "commit-ended-program")])
def test_a_file_that_stops_a_program_is_no_outage(kind: type[Hanging], code: str, release: Release) -> None:
    """A hanging program is restarted, an ended one restarts by itself, and both then serve the last proven set."""
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
    """Envoy and CoreDNS keep what was live, and the error names the sibling and what it rejected."""
    engine = Refusing()
    first = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, first)
    changed = stacks.blueprint(engine.facts(), "b.test", release=release)
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, changed)
    assert caught.value.code == "commit-rejected"
    assert "listeners" in caught.value.message
    assert stacks.found(engine, first) == set()


class Disproving(MemoryEngine):
    """An engine whose Envoy takes every commit, and is found to serve something else once CoreDNS has its own."""

    def __init__(self) -> None:
        """Take the first stack."""
        super().__init__()
        self.names_committed = threading.Event()

    def run_helper(self, container: str, arguments: Sequence[str], on_line: Callable[[Any], None]) -> None:
        """Say that the files are taken, and that the old ones are restored."""
        if arguments != ["commit"] or self.inside(container).spec.name != "clawker-envoy":
            super().run_helper(container, arguments, on_line)
            if arguments == ["commit"]:
                self.names_committed.set()
            return
        on_line({"taken": True})
        assert self.names_committed.wait(10)
        answer = {"committed": False, "rejected": [], "missing": ["listeners"], "reason": "", "hung": False}
        on_line(answer)


def test_what_is_taken_and_not_proven_is_an_error(release: Release) -> None:
    """Names resolve once Envoy serves with the new rules. If the proof fails afterwards, that is reported."""
    engine = Disproving()
    stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test", release=release))
    changed = stacks.blueprint(engine.facts(), "b.test", release=release)
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, changed)
    assert caught.value.code == "commit-rejected"
    assert {finding[0] for finding in stacks.found(engine, changed)} == {Sibling.ENVOY}


@pytest.fixture
def lock_image(memory: MemoryEngine, release: Release) -> image_tar.BuiltImage:
    """The image of the lock, loaded."""
    image = images.lock_image(memory.facts(), release.digests)
    memory.load_image(image.archive(), 1, lambda _: None)
    return image


def hold(engine: MemoryEngine, image: image_tar.BuiltImage, **changes: str) -> None:
    """Let another process hold the lock."""
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
    """Of two concurrent runs, the second is refused with the name of the holder."""
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
    """Ctrl-C ends a run that waits for the lock, before it has changed anything."""
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
    """The lock of a killed run does not block others."""
    hold(memory, lock_image, process=process)
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


def test_a_lock_that_could_not_be_given_back_is_taken_over_by_the_same_process(
    memory: MemoryEngine, release: Release, lock_image: image_tar.BuiltImage
) -> None:
    """A lock that could not be released because the engine went away does not block the same process."""
    hold(memory, lock_image)
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


class Renewed(MemoryEngine):
    """An engine on which a remote holder renews its lease."""

    def files(self, container: str, known: Files = NOTHING) -> Files:
        """Return the files, and renew the lease afterwards."""
        found = super().files(container, known)
        if "lease" in found:
            self.put_files(container, {"lease": public(found["lease"].content + b".")})
        return found


def test_the_lock_of_another_machine_is_respected_while_it_is_renewed(release: Release) -> None:
    """The lease shows whether a remote holder is alive."""
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
    """A holder that does not renew its lease counts as gone."""
    hold(memory, lock_image, host="elsewhere 1")
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


def test_a_run_whose_lock_was_taken_over_stops(
    memory: MemoryEngine, release: Release, lock_image: image_tar.BuiltImage
) -> None:
    """A run that was silent for too long stops, because another one has taken over."""
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
    """The lease is renewed, whatever the clocks of machines show."""
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.01)
    with lock.Lock(memory, "clawker", lock_image):
        until(lambda: memory.files("clawker-lock").get("lease", public(b"1")) != public(b"1"))


def test_a_renewal_does_not_wait_for_the_one_before(
    memory: MemoryEngine, lock_image: image_tar.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow engine, renewals arrive at their interval, though each takes longer than a lease."""
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
    """A lease is valid as long as stated, plus the duration of the engine's answers, within a limit."""
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
    """The holder states its lease, because it knows how slow the engine is."""
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
    """A waiting run gets the lock as soon as it is released."""
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
    """A run that has lost its lock removes nothing that another run has created."""
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
    """A run that has lost its lock undoes nothing, because another run may have adopted what it created."""
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
    """An error of a run that has lost its lock is not reported, because it is outdated."""
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
    """If the engine does not say who holds the lock, it may belong to another run, so nothing is undone."""
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
    """A container that appears after the comparison makes the run fail, which removes only what it has created."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, wanted)
    progress_seen: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if not progress_seen:
            engine.create_container(stacks.bare_container("clawker-envoy-next", wanted))
        progress_seen.append(progress)

    with pytest.raises(ConflictError):
        convergence.converge(
            engine, lambda: wanted, ConvergeOptions(0, replace_all=True), convergence.RunContext(on_progress)
        )
    assert [each.name for each in engine.listing()] == ["clawker-coredns", "clawker-envoy", "clawker-envoy-next"]


def test_everything_that_is_left_after_a_stop_is_named(release: Release) -> None:
    """Both siblings are retired in parallel, and what is not completed remains for the next run."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, wanted)
    started: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.step, ReleaseAddress | AwaitTtl):  # the first step of each
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


def _after(progress_seen: list[Progress], point: int) -> bool:
    return len(progress_seen) >= point


def test_stopping_finishes_the_step_in_hand(release: Release) -> None:
    """Before agents notice anything, created containers are removed again; later, what remains is named."""
    for point in range(1, 8):
        engine = MemoryEngine()
        first = stacks.blueprint(engine.facts(), "a.test", release=release)
        stacks.converged(engine, first)
        progress_seen: list[Progress] = []
        run_context = convergence.RunContext(progress_seen.append, partial(_after, progress_seen, point))
        with pytest.raises(StoppedError) as caught:
            convergence.converge(
                engine, partial(_itself, first), ConvergeOptions(0, replace_all=True), run_context
            )
        assert caught.value.exit_code == 130
        assert caught.value.context[0].startswith("left: ")
        assert stacks.serving(engine), point
        stacks.converged(engine, first)
        assert stacks.found(engine, first) == set(), point


@pytest.mark.parametrize("step", [Claim, ReleaseAddress])
def test_the_address_is_announced_once_only_one_holds_it(step: type, release: Release) -> None:
    """After a run that ended in a takeover, the old CoreDNS is removed when all agents know the new one.

    While both answer ARP, an agent can learn the old one's hardware address again. When that one is removed, the
    agent's queries are lost.
    """
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, wanted)
    ended: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.step, step) and progress.share == 1:
            ended.append(progress)

    options = ConvergeOptions(0, replace_all=True)
    with pytest.raises(StoppedError):
        convergence.converge(
            engine, lambda: wanted, options, convergence.RunContext(on_progress, lambda: bool(ended))
        )
    steps = pipeline.plan_for(pipeline.compare(engine, wanted), ConvergeOptions(0)).steps
    named = [f"{type(each).__name__} {getattr(each, 'seconds', '')}".strip() for each in steps]
    both = ["Claim 0", "Release"] if step is Claim else []
    assert named[: len(both) + 1] == [*both, f"Claim {ANNOUNCE_SECONDS}"]
    assert named[len(both) + 1] in {"Drain 0", "Remove"}
