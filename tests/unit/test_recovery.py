"""A run that fails, or is killed, anywhere: what served goes on serving, and the next run finishes."""

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import pytest

from clawker_fw import pipeline
from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.errors import EngineError, NotProvenError, RefusedError, StoppedError
from clawker_fw.model import ContainerSpec, ContainerView, Files, Shape, Verdict
from clawker_fw.reconcile import lock
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.reconcile.steps import Wish
from clawker_fw.stack import images, labels
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.waiting import until

WRITES = (
    "load_image",
    "create_network",
    "create_container",
    "start",
    "put_files",
    "run_helper",
    "rename",
    "remove",
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing that cleans up may run after it."""


class FaultyEngine(MemoryEngine):
    """Fails at one of its writing calls, before or after doing it."""

    def __init__(self) -> None:
        """Begin without a fault."""
        super().__init__()
        self.calls = 0
        self.fail_at: int | None = None
        self.error: BaseException = EngineError("engine-error", "The engine failed as the test wanted.")
        self.dead = False

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - whatever it has
        """Count the writing calls; once killed, nothing is done any more."""
        value = super().__getattribute__(name)
        if name not in WRITES:
            return value

        def counted(*arguments: object) -> object:
            if self.dead:
                raise Killed
            self.calls += 1
            if self.calls == self.fail_at:
                self.dead = isinstance(self.error, Killed)
                raise self.error
            return value(*arguments)

        return counted


@pytest.fixture
def faulty() -> FaultyEngine:
    """An engine whose faults a test chooses."""
    return FaultyEngine()


def serving(engine: MemoryEngine) -> bool:
    """Whether agents are served: one resolver holds the address, and its zone names an Envoy that runs."""
    views = engine.containers({f"clawker-{name}{end}" for name in ("envoy", "coredns") for end in ("", "-next")})
    running = [engine.inside(view.id) for view in views if view.running]
    service = "10.213.8.53"
    holders = [each for each in running if service in each.addresses]
    envoys = {each.networks["clawker-net"] for each in running if "hot/lds/listeners.json" in each.files}
    zones = [each.files["hot/zone/root.zone"].decode() for each in holders]
    return bool(holders) and all(any(f" A {address}\n" in zone for address in envoys) for zone in zones)


def _upgraded(engine: MemoryEngine, release: Release) -> Blueprint:
    return stacks.blueprint(engine.facts(), "a.test", "b.test", release=release, otel={"infra_port": 1})


def _points(release: Release) -> Iterator[int]:
    """Yield each writing call of an upgrade that replaces both siblings."""
    engine = FaultyEngine()
    stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test", release=release))
    before = engine.calls
    stacks.converged(engine, _upgraded(engine, release))
    yield from range(1, engine.calls - before + 1)


@pytest.mark.parametrize("error", [Killed(), EngineError("engine-error", "The engine failed.")])
def test_an_upgrade_stopped_at_any_call_is_finished_by_the_next_run(
    error: BaseException, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every point agents are still served; afterwards one run makes everything current and leaves nothing."""
    for point in _points(release):
        engine = FaultyEngine()
        stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test", release=release))
        wanted = _upgraded(engine, release)
        engine.fail_at, engine.error = engine.calls + point, error
        with suppress(type(error)):  # a drain that fails ends early, and is no failure of the run
            stacks.converged(engine, wanted)
        assert serving(engine), point
        engine.fail_at, engine.dead = None, False
        _forget_lock(engine)
        assert stacks.converged(engine, wanted).diff.verdict is Verdict.CURRENT, point
        assert serving(engine), point
        assert stacks.found(engine, wanted) == set(), point
        names = {each.spec.name for each in engine._containers.values()}  # noqa: SLF001 - all of them
        assert names == {"clawker-envoy", "clawker-coredns"}, point
    with capsys.disabled():
        print(f" [{point} points]", end="")  # noqa: T201 - how much was covered


def test_a_first_run_stopped_at_any_call_is_finished_by_the_next_run(release: Release) -> None:
    """Coming up from nothing can be stopped anywhere too."""
    for point in count(1):
        engine = FaultyEngine()
        wanted = stacks.blueprint(engine.facts(), "a.test", release=release)
        engine.fail_at, engine.error = point, Killed()
        try:
            stacks.converged(engine, wanted)
        except Killed:
            engine.dead = False
            _forget_lock(engine)
            assert stacks.converged(engine, wanted).diff.verdict is Verdict.CURRENT, point
            assert serving(engine)
        else:
            break


def _forget_lock(engine: MemoryEngine) -> None:
    """Do what the next run does with the lock of a process that is gone; this process is not."""
    engine.remove("clawker-lock")


class NeverReady(MemoryEngine):
    """An engine in which replacements start and never answer."""

    def start(self, container: str) -> None:
        """Start a container whose program stays silent when it is a replacement."""
        super().start(container)
        inside = self.inside(container)
        if inside.spec.name.endswith("-next"):
            inside.silent = "connection refused"
            inside.said.append("the program's last words")


def test_a_replacement_that_never_answers_is_taken_back(release: Release) -> None:
    """The old siblings are untouched, and the error carries the program's last words."""
    engine = NeverReady()
    first = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, first)
    before = {name: engine.inside(name).id for name in ("clawker-envoy", "clawker-coredns")}
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, first, Wish(0, replace_all=True))
    assert caught.value.code == "replacement-not-ready"
    assert "it said: the program's last words" in caught.value.context
    assert {name: engine.inside(name).id for name in before} == before
    assert stacks.found(engine, first) == set()


class Refusing(MemoryEngine):
    """An engine whose Envoy refuses what is committed."""

    def put_files(self, container: str, files: Files) -> None:
        """Stage Envoy's listeners without a version, as an unreadable file would be."""
        super().put_files(container, files)
        staged = self.inside(container).files
        if "stage/hot/lds/listeners.json" in staged:
            staged["stage/hot/lds/listeners.json"] = b"{}"
            record = staged["stage/commit.json"].decode()
            parsed = json.loads(record)
            for file in parsed["files"]:
                if file["path"] == "lds/listeners.json":
                    file["sha256"] = hashlib.sha256(b"{}").hexdigest()
            staged["stage/commit.json"] = json.dumps(parsed).encode()


def test_a_refused_file_keeps_the_old_rules(release: Release) -> None:
    """What was live is live still, in Envoy and in the zone, and the error says who refused what."""
    engine = Refusing()
    first = stacks.blueprint(engine.facts(), "a.test", release=release)
    stacks.converged(engine, first)
    changed = stacks.blueprint(engine.facts(), "b.test", release=release)
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, changed)
    assert caught.value.code == "commit-rejected"
    assert "lds/listeners" in caught.value.message
    assert stacks.found(engine, first) == set()


@pytest.fixture
def lock_image(memory: MemoryEngine, release: Release) -> images.BuiltImage:
    """The image of the lock, loaded."""
    image = images.lock_image(memory.facts(), release.digests)
    memory.load_image(image.archive(), 1, lambda _: None)
    return image


def hold(engine: MemoryEngine, image: images.BuiltImage, **changes: str) -> None:
    """Have somebody else hold the lock, somewhere."""
    held_by = dict(lock.holder()) | {f"{labels.PREFIX}lock.{name}": text for name, text in changes.items()}
    engine.create_container(
        ContainerSpec(
            "clawker-lock",
            image.reference,
            labels.ownership_labels("clawker") | held_by,
            Shape((), (), {}),
            {"lease": b"0"},
        )
    )


def test_the_lock_of_a_living_process_is_respected(
    memory: MemoryEngine, release: Release, lock_image: images.BuiltImage
) -> None:
    """Two runs at once: the second one is refused, and told who is at work."""
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    with lock.Lock(memory, "clawker", lock_image), pytest.raises(RefusedError) as caught:
        stacks.converged(memory, wanted)
    assert caught.value.code == "lock-held"
    assert any("process" in line for line in caught.value.context)
    stacks.converged(memory, wanted)
    assert memory.containers({"clawker-lock"}) == ()


@pytest.mark.parametrize("process", ["999999999 1", "1 0", "", "x"])
def test_the_lock_of_a_process_that_is_gone_is_taken_over(
    process: str, memory: MemoryEngine, release: Release, lock_image: images.BuiltImage
) -> None:
    """A run that was killed does not keep others out."""
    hold(memory, lock_image, process=process)
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


class Renewed(MemoryEngine):
    """An engine on which somebody elsewhere renews their lease whenever nobody looks."""

    def files(self, container: str) -> Files:
        """Return the files, and change the lease after that."""
        found = super().files(container)
        if "lease" in found:
            self.put_files(container, {"lease": found["lease"] + b"."})
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
    memory: MemoryEngine, release: Release, lock_image: images.BuiltImage
) -> None:
    """A holder that is not heard of for a whole lease is gone."""
    hold(memory, lock_image, host="elsewhere 1")
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


def test_a_run_whose_lock_was_taken_over_stops(
    memory: MemoryEngine, release: Release, lock_image: images.BuiltImage
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
    memory: MemoryEngine, lock_image: images.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others see the lease change, whatever their clocks say."""
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.01)
    with lock.Lock(memory, "clawker", lock_image):
        until(lambda: memory.files("clawker-lock")["lease"] not in {b"0", b"1"})


def test_a_wait_ends_when_the_lock_is_free(
    memory: MemoryEngine, lock_image: images.BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With time to wait, the next in line gets the lock as soon as it is given back."""
    hold(memory, lock_image)  # this very process, which is alive
    looks = count()

    def containers(names: Collection[str]) -> tuple[ContainerView, ...]:
        if next(looks) == 3:
            memory.remove("clawker-lock")
        return MemoryEngine.containers(memory, names)

    monkeypatch.setattr(memory, "containers", containers)
    with lock.Lock(memory, "clawker", lock_image, wait=1000):
        pass


def _after(told: list[Progress], point: int) -> bool:
    return len(told) >= point


def test_stopping_finishes_the_step_in_hand(release: Release) -> None:
    """Before an agent could notice, what was made is taken away; afterwards, what is left is named."""
    for point in range(1, 8):
        engine = MemoryEngine()
        first = stacks.blueprint(engine.facts(), "a.test", release=release)
        stacks.converged(engine, first)
        told: list[Progress] = []
        turn = pipeline.Turn(told.append, partial(_after, told, point))
        with pytest.raises(StoppedError) as caught:
            pipeline.converge(engine, first, Wish(0, replace_all=True), turn)
        assert caught.value.exit_code == 130
        assert caught.value.context[0].startswith("left: ")
        assert serving(engine), point
        stacks.converged(engine, first)
        assert stacks.found(engine, first) == set(), point
