"""A container of ours that does one thing on an engine, and is removed afterwards.

A project has one at a time, with a name of its own (`trial_name`): `down` and the next errand remove one that was
killed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import RefusedError, after
from clawker_fw.model import ContainerSpec
from clawker_fw.reconcile.own_images import create_from
from clawker_fw.stack.container import LOG
from clawker_fw.stack.image_tar import BuiltImage

_LOOK_EVERY = 0.05
_MOST_LINES = 1000
_ENDED = {"exited", "dead"}


@contextmanager
def errand(
    engine: EngineWriter, project: str, spec: ContainerSpec, seconds: float, image: BuiltImage | None = None
) -> Iterator[tuple[str, ...] | None]:
    """Run a container to its end, and yield what it has written. None if it has not ended after `seconds`.

    It is removed when the caller has read it: an error in that comes before one of the removal. `image` is its
    own image, if it is one of ours. Its log is one that every engine can read.

    Raises:
        RefusedError: when somebody else has a container of its name.
    """
    remove_former(engine, spec.name, project)
    container = create_from(engine, replace(spec, shape=replace(spec.shape, log=LOG)), image)
    try:
        yield _run(engine, container, seconds)
    except BaseException as error:
        with after(error, f"the container {spec.name} was not removed either"):
            engine.remove(container)
        raise
    engine.remove(container)


def _run(engine: EngineWriter, container: str, seconds: float) -> tuple[str, ...] | None:
    engine.start(container)
    end = time.monotonic() + seconds
    while (found := engine.container(container)) and found.status not in _ENDED:
        if time.monotonic() > end:
            return None
        time.sleep(_LOOK_EVERY)
    return engine.last_words(container, _MOST_LINES)


def remove_former(engine: EngineWriter, name: str, project: str) -> None:
    """Remove the container of an earlier errand that was killed.

    Raises:
        RefusedError: when the container is not ours.
    """
    former = engine.container(name)
    if former is None:
        return
    if former.project != project:
        raise RefusedError(
            "foreign-container",
            f"The container {name} exists, but clawker-fw did not create it.",
            hint="Rename or remove that container.",
        )
    engine.remove(former.id)
