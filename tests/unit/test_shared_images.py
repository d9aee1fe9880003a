"""Images shared by projects: none is lost to a run that is about to use it."""

import pytest

from clawker_fw.errors import NotFoundError
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.model.differences import Verdict
from devkit import stacks
from devkit.memory.engine import MemoryEngine


class Contested(MemoryEngine):
    """An engine on which another project removes each image just before its use."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times
        self._removed: dict[str, int] = {}

    def create_container(self, spec: ContainerSpec) -> str:
        if self._removed.setdefault(spec.image, 0) < self._times:
            self._removed[spec.image] += 1
            self.remove_image(spec.image)
        return super().create_container(spec)


@pytest.mark.parametrize("times", [1, 2])
def test_an_image_that_is_removed_before_it_is_used_is_loaded_again(times: int) -> None:
    """Both containers' images and the lock's are loaded again, and the stack comes up."""
    engine = Contested(times)
    wanted = stacks.blueprint(engine.facts(), "a.test")
    assert stacks.converged(engine, wanted).diff.verdict is Verdict.CURRENT


def test_an_image_that_never_stays_is_an_error() -> None:
    """If the image is removed each time, the run ends with the engine's error."""
    engine = Contested(99)
    with pytest.raises(NotFoundError, match="no image"):
        stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test"))
