"""Images that several projects of an engine share: none is removed that another run is about to use."""

import pytest

from clawker_fw.errors import NotFoundError
from clawker_fw.model import ContainerSpec, Sibling, Verdict
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.converge import take_down
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.reconcile.lock import Lock
from clawker_fw.stack import images
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.memory.engine import MemoryEngine


@pytest.fixture
def changed(memory: MemoryEngine, release: Release) -> Blueprint:
    """What is wanted of the project `one`: another Envoy than the one that we have built, which it has."""
    stacks.converged(memory, stacks.blueprint(memory.facts(), "a.test", project="one", release=release))
    chosen = {"envoy": f"registry.test/envoy@sha256:{'1' * 64}"}
    return stacks.blueprint(memory.facts(), "a.test", project="one", release=release, images=chosen)


@pytest.fixture
def other(memory: MemoryEngine) -> Lock:
    """The lock of the project `two`, whose run wants the Envoy that we have built."""
    return Lock(memory, "two", images.lock_image(memory.facts()))


def test_a_run_removes_no_image_while_another_project_is_at_work(
    memory: MemoryEngine, release: Release, changed: Blueprint, other: Lock
) -> None:
    """What it needs no more is left to a run that may be about to use it, and the next run removes it."""
    built = stacks.blueprint(memory.facts(), "a.test", release=release).images[Sibling.ENVOY].reference
    with other:
        assert stacks.converged(memory, changed).diff.verdict is Verdict.CURRENT
        stacks.converged(memory, changed)
        assert memory.image(built)
    stacks.converged(memory, changed)
    assert memory.image(built) is None


def test_taking_a_stack_down_removes_no_image_either(
    memory: MemoryEngine, changed: Blueprint, other: Lock
) -> None:
    """While another project is at work, all images are named as left; afterwards they are removed."""
    context = RunContext(lambda _: None)
    with other:
        left = take_down(memory, changed.project, context, detach=False, everything=True)
        assert {name.partition(":")[0] for name in left} == {"clawker-fw/envoy", "clawker-fw/coredns"}
        assert all(memory.image(name) for name in left)
    assert take_down(memory, changed.project, context, detach=False, everything=True) == ()
    assert memory.own_images() == ()


class Contested(MemoryEngine):
    """An engine on which the run of another project removes each image just before it is used."""

    def __init__(self, times: int) -> None:
        """`times` is how often each image is removed."""
        super().__init__()
        self._times = times
        self._removed: dict[str, int] = {}

    def create_container(self, spec: ContainerSpec) -> str:
        """Remove the image first."""
        if self._removed.setdefault(spec.image, 0) < self._times:
            self._removed[spec.image] += 1
            self.remove_image(spec.image)
        return super().create_container(spec)


@pytest.mark.parametrize("times", [1, 2])
def test_an_image_that_is_removed_before_it_is_used_is_loaded_again(times: int, release: Release) -> None:
    """Those of both siblings and that of the lock; the stack comes up as if nothing had happened."""
    engine = Contested(times)
    wanted = stacks.blueprint(engine.facts(), "a.test", release=release)
    assert stacks.converged(engine, wanted).diff.verdict is Verdict.CURRENT


def test_an_image_that_never_stays_is_an_error(release: Release) -> None:
    """The end of it is the engine's own error."""
    engine = Contested(99)
    with pytest.raises(NotFoundError, match="no image"):
        stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test", release=release))
