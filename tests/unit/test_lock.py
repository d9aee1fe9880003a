"""One run at a time: waiting, taking over a lock, and losing it."""

import os
import shutil
import subprocess
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from clawker_fw.engine.port import NOTHING
from clawker_fw.errors import (
    EngineError,
    FirewallError,
    LockLostError,
    NotProvenError,
    RefusedError,
    StoppedError,
)
from clawker_fw.model.containers import ContainerView
from clawker_fw.model.differences import Verdict
from clawker_fw.model.files import Files
from clawker_fw.reconcile import converge, lock, pipeline
from clawker_fw.reconcile.apply import Progress, RunContext
from clawker_fw.reconcile.steps import ConvergeOptions, Verify
from clawker_fw.stack import image_tar, images, labels
from clawker_fw.stack.files import public
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.waiting import until


@pytest.fixture
def lock_image(memory: MemoryEngine) -> image_tar.BuiltImage:
    image = images.lock_image(memory.facts())
    memory.load_image(image.archive(), 1, lambda _: None)
    return image


def hold(engine: MemoryEngine, image: image_tar.BuiltImage, **changes: str) -> None:
    held_by = dict(lock.holder()) | {f"{labels.PREFIX}lock.{name}": text for name, text in changes.items()}
    engine.create_container(
        stacks.never_started("clawker-lock", image.reference, labels.ownership_labels("clawker") | held_by)
    )


def test_waiting_for_the_lock_can_be_stopped(
    memory: MemoryEngine, lock_image: image_tar.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends a run that waits for the lock, before it changes anything."""
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


GONE = [
    *({"process": process} for process in ("999999999 1", "1 0", "", "x", "\u00b2 1", "9" * 5000 + " 1")),
    {},  # this process, which could not release it because the engine went away
    {"host": "elsewhere 1"},  # its lease is not renewed
]


@pytest.mark.parametrize("holder", GONE, ids=lambda each: str(each)[:30])
def test_the_lock_of_a_run_that_is_gone_is_taken_over(
    holder: dict[str, str],
    memory: MemoryEngine,
    lock_image: image_tar.BuiltImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock of a killed run, or of one that lost its engine, is taken over."""
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.0)
    hold(memory, lock_image, **holder)
    wanted = stacks.blueprint(memory.facts(), "a.test")
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


class Renewed(MemoryEngine):
    """An engine on which a remote holder renews its lease."""

    def files(self, container: str, known: Files = NOTHING) -> Files:
        """Return the files, and renew the lease afterwards."""
        found = super().files(container, known)
        if "lease" in found:
            self.put_files(container, {"lease": public(found["lease"].content + b".")})
        return found


def test_the_lock_of_another_machine_is_respected_while_it_is_renewed() -> None:
    """A renewed lease shows that its remote holder is alive."""
    engine = Renewed()
    image = images.lock_image(engine.facts())
    engine.load_image(image.archive(), 1, lambda _: None)
    hold(engine, image, host="elsewhere 1")
    with pytest.raises(RefusedError) as caught:
        stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test"))
    assert "elsewhere" in caught.value.context[1]
    assert "--lock-wait" in caught.value.hint


def test_a_run_whose_lock_was_taken_over_stops(memory: MemoryEngine, lock_image: image_tar.BuiltImage) -> None:
    """A run that was silent too long stops, because another one has taken over."""
    with lock.Lock(memory, "clawker", lock_image) as held:
        held.require_held()
        memory.remove("clawker-lock")
        hold(memory, lock_image, host="elsewhere 1")
        with pytest.raises(RefusedError) as caught:
            held.require_held()
    assert caught.value.code == "lock-lost"
    assert memory.inside("clawker-lock")


def test_a_lease_is_renewed_while_its_holder_works(
    memory: MemoryEngine,
    lock_image: image_tar.BuiltImage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A lease lasts several renewal times. Each series of failures is reported once."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.05)
    calls = count(1)
    leases: list[bytes] = []

    def put_files(container: str, files: Files) -> None:
        clock.now += 8
        if next(calls) in {2, 3, 5, 6}:
            raise EngineError("engine-unreachable", "It did not answer.")
        leases.extend(file.content for file in files.values())
        MemoryEngine.put_files(memory, container, files)

    monkeypatch.setattr(memory, "put_files", put_files)
    with lock.Lock(memory, "clawker", lock_image):
        until(lambda: b"7 32" in leases)
    assert [record.msg for record in caplog.records] == ["lock_not_renewed"] * 2


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
    ("lease", "answer", "silent"),
    [(b"1", 0, 20), (b"1", 8, 28), (b"1 5", 0, 20), (b"1 32", 8, 40), (b"1 99999", 0, 120), (b"1 x", 0, 20)],
)
def test_how_long_a_holder_may_be_silent(
    lease: bytes, answer: float, silent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is the lease, whose length the holder may state, plus the engine's response time."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=lambda: clock.now))
    watch = lock.LeaseWatch()
    assert not watch.silent("a", lease, clock.now)
    clock.now = silent - 0.1
    assert not watch.silent("a", lease, clock.now - answer)
    clock.now = silent + 0.1
    assert watch.silent("a", lease, clock.now - answer)
    assert not watch.silent("a", b"2", clock.now)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_has_lost_the_lock_undoes_nothing(*, fails: bool) -> None:
    """A run that lost its lock reports no errors: another run may have adopted its containers."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test")
    adopted: dict[str, str] = {}

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.step, Verify) and not adopted:
            engine.remove("clawker-lock")
            stacks.converged(engine, wanted)
            adopted.update({each.name: each.id for each in engine.listing()})
            if fails:
                raise NotProvenError("replacement-not-ready", "It did not answer, then.")

    with pytest.raises(LockLostError):
        converge.converge(engine, lambda: wanted, ConvergeOptions(), RunContext(on_progress))
    assert adopted
    assert {each.name: each.id for each in engine.listing()} == adopted
    assert stacks.found(engine, wanted) == set()
    assert pipeline.compare(engine, wanted).failed_attempt is None


def test_a_run_that_can_not_tell_whose_turn_it_is_undoes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the engine does not tell who holds the lock, nothing is undone: another run may hold it."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test")

    def unsaid(name: str) -> ContainerView | None:
        raise EngineError("engine-unreachable", f"The engine did not answer when asked about {name}.")

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.step, Verify):
            monkeypatch.setattr(engine, "container", unsaid)

    with pytest.raises(EngineError) as caught:
        converge.converge(engine, lambda: wanted, ConvergeOptions(), RunContext(on_progress))
    assert any("the rollback failed as well" in line for line in caught.value.context)
    assert {"clawker-envoy", "clawker-coredns"} <= {each.name for each in engine.listing()}


class Unremovable(MemoryEngine):
    """An engine that fails to remove a lock."""

    def remove(self, container: str) -> None:
        if self.inside(container).spec.name == "clawker-lock":
            raise EngineError("engine-error", "The engine could not remove it.", context=["driver failed"])
        super().remove(container)


@pytest.mark.parametrize("ends", [NotProvenError("not-proven", "It differs."), KeyboardInterrupt(), None])
def test_the_first_error_is_told_when_the_lock_is_not_released_either(ends: BaseException | None) -> None:
    """The first error keeps its exit code and gets the second as context; a single error is reported."""
    engine = Unremovable()
    image = images.lock_image(engine.facts())
    held = lock.Lock(engine, "clawker", image)
    with pytest.raises(type(ends) if ends else EngineError) as caught:
        _ended(held, ends)
    error = caught.value
    if ends is None:
        assert error.args == ("The lock of clawker could not be released.",)
        return
    assert error is ends
    told = error.context if isinstance(error, FirewallError) else error.__notes__
    (line,) = told
    assert line.startswith("the lock was not released either: The lock of clawker could not be released.")
    assert line.endswith("driver failed")


def _ended(held: lock.Lock, ends: BaseException | None) -> None:
    with held:
        if ends:
            raise ends


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"a) S 1\n", b"\xe2\x80\xa8"], ids=["foreign", "forged", "separator"]
)
def test_a_process_of_any_name_has_a_start_time(name: bytes, tmp_path: Path) -> None:
    """A process name in /proc may contain any bytes without breaking the parser."""
    own = lock.start_time(os.getpid())
    program = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118 - a path of bytes
    shutil.copy(os.fsencode(shutil.which("sleep") or ""), program)
    with subprocess.Popen([program, b"60"]) as process:
        try:
            until(lambda: Path(f"/proc/{process.pid}/comm").read_bytes().startswith(name[:2]))
            assert int(lock.start_time(process.pid)) >= int(own)
        finally:
            process.kill()


def test_down_waits_for_a_first_run(memory: MemoryEngine, lock_image: image_tar.BuiltImage) -> None:
    """`down` is refused while a first run is at work, even before it created anything."""
    parent = os.getppid()
    hold(memory, lock_image, process=f"{parent} {lock.start_time(parent)}")
    context = RunContext(lambda _: None)
    with pytest.raises(RefusedError) as caught:
        converge.take_down(memory, "clawker", context, detach=False)
    assert caught.value.code == "lock-held"
    memory.remove("clawker-lock")
    hold(memory, lock_image, process="1 1")
    converge.take_down(memory, "clawker", context, detach=False)
    assert memory.container("clawker-lock") is None


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("agent run -e GH_TOKEN=s3cret image", "clawker-fw agent run"),
        ("--config /s3cret/x.yaml --project s3cret run --diff", "clawker-fw run"),
        ("--host=ssh://s3cret@gate rules allow s3cret.example", "clawker-fw rules allow"),
        ("secrets remove s3cret", "clawker-fw secrets remove"),
        ("", "clawker-fw"),
    ],
)
def test_a_lock_says_what_is_done_without_arguments(
    words: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock omits arguments, which may hold secrets: engines publish labels with their events."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/clawker-fw", *words.split()])
    assert lock.holder()[labels.LOCK_COMMAND] == shown
