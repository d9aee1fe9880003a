"""One-shot containers: one at a time, and none left behind."""

import threading
from types import SimpleNamespace

import pytest

from clawker_fw.errors import RefusedError
from clawker_fw.model.differences import Verdict
from clawker_fw.reconcile import lock, one_shot, pipeline
from clawker_fw.reconcile.lock import holder
from clawker_fw.reconcile.observe import observe
from clawker_fw.reconcile.plan import examiner
from clawker_fw.report.facts import leftovers
from clawker_fw.stack import labels
from clawker_fw.stack.container import trial_name
from devkit import stacks
from devkit.memory.engine import MemoryEngine

NAME = trial_name("clawker")
OURS = labels.ownership_labels("clawker")


@pytest.fixture
def engine(memory: MemoryEngine) -> MemoryEngine:
    stacks.converged(memory, stacks.blueprint(memory.facts(), "a.test"))
    return memory


def test_two_at_once_take_turns(engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits until the first has read its answer, and neither removes the other's container."""
    spec = stacks.never_started(NAME, engine.inside("clawker-coredns").image, OURS)
    order: list[str] = []
    waited = threading.Event()
    monkeypatch.setattr(one_shot, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: waited.set()))

    def second() -> None:
        with one_shot.in_turn(engine, "clawker", spec, 60):
            order.append("second")

    with one_shot.in_turn(engine, "clawker", spec, 60) as first:
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(30)
        assert engine.container(first)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert engine.container(NAME) is None


@pytest.mark.parametrize("host", ["here", "elsewhere 1"])
def test_many_take_turns(engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A long queue never causes removal of a container that is still within its time."""
    image = engine.inside("clawker-coredns").image
    others = {**OURS, **holder(), labels.LOCK_PROCESS: f"1 {lock.start_time(1)}"}
    others |= {labels.LOCK_HOST: host} if host != "here" else {}
    current = [engine.create_container(stacks.never_started(NAME, image, others))]
    clock, turns = 0.0, 5

    def next_turn(_: float) -> None:
        nonlocal clock, turns
        clock, turns = clock + 40, turns - 1
        engine.remove(current.pop())  # fails if it has been removed
        if turns:
            current.append(engine.create_container(stacks.never_started(NAME, image, others)))

    monkeypatch.setattr(one_shot, "time", SimpleNamespace(monotonic=lambda: clock, sleep=next_turn))
    with one_shot.in_turn(engine, "clawker", stacks.never_started(NAME, image, OURS), 60):
        assert turns == 0


def test_a_live_process_that_never_ends_is_an_error(engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that never ends is an error, but its container stays."""
    image = engine.inside("clawker-coredns").image
    other = {**OURS, **holder(), labels.LOCK_PROCESS: f"1 {lock.start_time(1)}"}
    held = engine.create_container(stacks.never_started(NAME, image, other))
    clock = iter(range(1000))
    monkeypatch.setattr(one_shot, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
    with (
        pytest.raises(RefusedError) as caught,
        one_shot.in_turn(engine, "clawker", stacks.never_started(NAME, image, OURS), 60),
    ):
        pass
    assert caught.value.code == "lock-held"
    assert engine.container(held)


def test_the_container_that_asks_the_kernel_says_whose_it_is(memory: MemoryEngine) -> None:
    """A left-behind container that queries the kernel carries its owner, so the next run removes it."""
    wanted = stacks.blueprint(memory.facts(), "a.test")
    spec = examiner(pipeline.compare(memory, wanted).desired)
    stacks.converged(memory, wanted)
    seen: list[bool] = []
    for left in ({**OURS, **holder()}, {**OURS, **holder(), labels.LOCK_PROCESS: "1 1"}):
        memory.create_container(stacks.never_started(NAME, memory.inside("clawker-coredns").image, left))
        assert leftovers(observe(memory, "clawker"), None).containers == (NAME,)
        assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT
        seen.append(memory.container(NAME) is None)
    assert seen == [True, True]
    with one_shot.in_turn(memory, "clawker", spec, 60) as made:
        view = memory.container(made)
        assert view
        assert all(label in view.labels for label in labels.LOCK)
        assert leftovers(observe(memory, "clawker"), None).containers == ()
