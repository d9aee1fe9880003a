"""What we need of an engine, in our words: a reader that can't write, and a writer.

`docker.py` speaks to a real engine, `memory.py` holds one in memory; one contract suite runs over both. Every
method raises `EngineError` (or its subclasses `NotFoundError`, `ConflictError`) and nothing else of an engine's.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Protocol

from clawker_fw.model import (
    ContainerSpec,
    ContainerSummary,
    ContainerView,
    EngineFacts,
    Event,
    Files,
    ImageView,
    NetworkSpec,
    NetworkView,
    OwnImage,
    Probe,
)

NOTHING: Files = MappingProxyType({})
"""No files."""

ProgressCallback = Callable[[float], None]
"""Called with the share that is done, 0 to 1, while something long goes on."""


STOP_SECONDS = 5
"""How long a container may take to stop by itself."""


class EngineReader(Protocol):
    """Everything that can be looked at. `drift`, `status` and `--dry-run` hold nothing else."""

    def facts(self) -> EngineFacts:
        """Return which engine this is, and what its machine has routes to now."""

    def networks(self) -> tuple[NetworkView, ...]:
        """Return every network of the engine."""

    def listing(self) -> tuple[ContainerSummary, ...]:
        """Return every container of the engine in short, whoever made it and in any state, by name."""

    def container(self, container: str) -> ContainerView | None:
        """Return the container of exactly this name or id, whoever made it; None when there is none."""

    def own_images(self) -> tuple[OwnImage, ...]:
        """Return the images that are exactly as we make them, of whichever release, with the tags we gave them."""

    def orphans(self, project: str) -> tuple[str, ...]:
        """Return the volumes that were made with containers of the project, and that none has any more; sorted."""

    def image(self, reference: str) -> ImageView | None:
        """Return an image by its id, tag or digest reference; None when the engine does not have it."""

    def files(self, container: str, known: Files = NOTHING) -> Files:
        """Return the regular files and links in a container's volume; a link reads as `-> its target`.

        A folder is among them, by its absolute path, when its mode or owner is another than that of all folders.
        A file that is as it is `known` is that very object: what is large and the same everywhere is held once.
        """

    def probe(self, container: str) -> Probe:
        """Ask a running container what is live in it."""

    def last_words(self, container: str, lines: int) -> tuple[str, ...]:
        """Return the last lines that a container's program wrote."""

    def events(self) -> AbstractContextManager[Iterator[Event]]:
        """Follow what happens to containers, networks and images, from when the context is entered.

        Looking makes no events, but for the commands that are run in containers. The iterator waits for the next
        event, and ends when the engine goes away or the context is left, by whichever thread.
        """

    def close(self) -> None:
        """Close the connections to it."""


class EngineWriter(EngineReader, Protocol):
    """Everything that can be done. What decides never holds one."""

    def load_image(self, archive: Iterator[bytes], size: int, tell: ProgressCallback) -> None:
        """Load an image from a tar of about `size` bytes."""

    def pull_image(self, reference: str, tell: ProgressCallback) -> None:
        """Pull an image that a digest names."""

    def remove_image(self, reference: str) -> None:
        """Remove an image. One that is gone, or that a container has been made from meanwhile, is no error."""

    def remove_volume(self, volume: str) -> None:
        """Remove a volume. One that is gone, or that a container has taken meanwhile, is no error."""

    def create_network(self, spec: NetworkSpec) -> None:
        """Make a network."""

    def remove_network(self, network: str) -> None:
        """Remove a network by its id."""

    def create_container(self, spec: ContainerSpec) -> str:
        """Make a container with its files, not started, and return its id.

        Raises:
            ConflictError: when the name is taken.
        """

    def start(self, container: str) -> None:
        """Start a container that does not run."""

    def stop(self, container: str, seconds: int = STOP_SECONDS) -> None:
        """Stop a container, and kill it after so long. One that does not run is no error."""

    def unpause(self, container: str) -> None:
        """Let a paused container go on."""

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""

    def remove(self, container: str) -> None:
        """Stop a container if it runs, and remove it with its volume. One that is gone is no error."""

    def connect(self, network: str, container: str, address: str) -> None:
        """Put a container on a network, at an address there."""

    def disconnect(self, network: str, container: str) -> None:
        """Take a container off a network."""

    def put_files(self, container: str, files: Files) -> None:
        """Write files into a container's volume, in place."""

    def run_helper(self, container: str, arguments: Sequence[str], on_line: Callable[[Any], None]) -> None:
        """Run a verb of `fwctl` in a running container, and hand over each JSON line it prints at once.

        Raises:
            EngineError: with its last words, when it fails.
        """
