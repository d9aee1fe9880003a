"""Images that several projects of an engine share: none is removed that another run is about to use."""

import pytest

from clawker_fw.errors import NotFoundError
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.model.differences import Verdict
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.memory.engine import MemoryEngine


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
