"""Creating containers from our own images, which all projects of an engine share.

Each run removes the images that no container uses. A run of another project may just have found or loaded one of
them, and be about to create a container from it.
"""

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import NotFoundError
from clawker_fw.model import ContainerSpec
from clawker_fw.stack.image_tar import BuiltImage

_TIMES = 3
"""How often an image is loaded again. Whoever has removed it is at the end of a run."""


def create_from(engine: EngineWriter, spec: ContainerSpec, image: BuiltImage | None) -> str:
    """Create a container and return its id. If its image, one of ours, is gone by then, it is loaded again.

    Raises:
        EngineError: when it can't be created.
    """
    for _ in range(_TIMES):
        try:
            return engine.create_container(spec)
        except NotFoundError:
            if image is None or engine.image(spec.image) is not None:
                raise
        engine.load_image(image.archive(), image.archive_size, lambda _: None)
    return engine.create_container(spec)
