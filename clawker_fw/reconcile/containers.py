"""Create containers from our own images, which other projects' runs may remove, and read why one has ended."""

import re

from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import EngineError, NotFoundError
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.stack.image_tar import BuiltImage

_TIMES = 3
"""How often an image is loaded again. The run that removed it is about to end."""

_READ = 400
"""How many lines to read: an Envoy that keeps restarting writes a backtrace each time."""

_SHOWN = 8

_IRRELEVANT = re.compile(
    r"""^\s*$
    | ^\s*\{  # a record of a refusal to an agent
    | ^\[[^\]]*\]\[\d+\]\[(trace|debug|info|warning)\](?!.*\brejected\b)  # Envoy warns of rejected files
    | \]\[backtrace\]\ \[[^\]]*\]\ (?!Caught\ )  # all of Envoy's backtrace but the signal
    | ^\s*(@|\#\d+)\s*(0x|\S+\ ) | ^\s*0x[0-9a-f]+  # addresses
    """,
    re.VERBOSE,
)


def create_from(engine: EngineWriter, spec: ContainerSpec, image: BuiltImage | None) -> str:
    """Create a container and return its id. If its image is ours and gone meanwhile, load it again.

    Raises:
        EngineError: if it can't be created.
    """
    for _ in range(_TIMES):
        try:
            return engine.create_container(spec)
        except NotFoundError:
            if image is None:
                raise
        if engine.image(spec.image) is None:  # else another run has loaded it meanwhile
            engine.load_image(image.archive(), image.archive_size, lambda _: None)
    return engine.create_container(spec)


def last_words(reader: EngineReader, container: str) -> list[str]:
    """Return the last relevant lines of a container's log, or none if it is unreadable."""
    try:
        lines = reader.last_words(container, _READ)
    except NotFoundError:
        return []
    except EngineError as error:
        return [f"the log of {container} could not be read: {error.in_one_line}"]
    return [f"log: {line}" for line in lines if not _IRRELEVANT.search(line)][-_SHOWN:]
