"""The interface to an engine, in the model's terms: a reader, which can't change anything, and a writer.

`docker.py` connects to a real engine, `devkit/memory/engine.py` simulates one, and one contract suite tests both.
Failures are `EngineError` or its subclasses `NotFoundError` and `ConflictError`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Protocol

from clawker_fw.model.containers import ContainerSpec, ContainerSummary, ContainerView
from clawker_fw.model.engines import EngineFacts, Event, Machine
from clawker_fw.model.files import File, Files
from clawker_fw.model.images import ImageView, OwnImage
from clawker_fw.model.networks import NetworkSpec, NetworkView
from clawker_fw.model.volumes import VolumeView

NOTHING: Files = MappingProxyType({})

ProgressCallback = Callable[[float], None]
"""A callback that receives the completed share of a long operation, from 0 to 1."""

STOP_SECONDS = 5
"""Seconds for a container to stop before it is killed."""


class EngineReader(Protocol):
    """Everything that can be read. `drift`, `status` and `--dry-run` hold only this interface."""

    def facts(self) -> EngineFacts:
        """Return the engine's properties, and the current routes of its host."""

    def machine(self) -> Machine:
        """Return the host's current resources, because a virtual machine can be resized."""

    def networks(self) -> tuple[NetworkView, ...]:
        """Return all networks."""

    def listing(self) -> tuple[ContainerSummary, ...]:
        """Return a summary of every container, ours or not, in any state, sorted by name."""

    def container(self, container: str) -> ContainerView | None:
        """Return the container with exactly this name or id, ours or not, or None."""

    def own_images(self) -> tuple[OwnImage, ...]:
        """Return the images that releases of ours built, with their tags."""

    def unused_volumes(self, project: str) -> tuple[VolumeView, ...]:
        """Return a project's unused volumes, sorted by name: remains of a container, or for agents' trust."""

    def volumes(self) -> tuple[VolumeView, ...]:
        """Return all volumes."""

    def image(self, reference: str) -> ImageView | None:
        """Return an image by its id, tag or digest reference, or None if the engine does not have it."""

    def files(self, container: str, known: Files = NOTHING) -> Files:
        """Return the regular files and links in a container's volume. The content of a link is `-> TARGET`.

        A folder is included, by its absolute path, only if its mode or owner is unusual. Files equal to those in
        `known` are returned as the same objects, so that large files are in memory once.
        """

    def ask_helper(self, container: str, arguments: Sequence[str], silence: float, *, sent: bytes = b"") -> object:
        """Run a verb of `fwctl` that changes nothing in a running container, with `sent` on its standard input.

        Return the JSON of its one line, or None if it did not print exactly one. `clawker_fw.fwctl` has the verbs.
        `silence` is the timeout without output in seconds.

        Raises:
            EngineError: when it fails; the context has its error output.
        """

    def removal(self, container: str) -> Future[int]:
        """Return a future of a container's last exit code, set when the container has been removed."""

    def last_words(self, container: str, lines: int) -> tuple[str, ...]:
        """Return the last lines of a container's log."""

    def clock(self) -> float:
        """Return the host's time, in seconds since 1970."""

    def log(
        self, container: str, lines: int | None, *, follow: bool = False
    ) -> AbstractContextManager[Iterator[list[bytes]]]:
        """Read the last `lines` lines of a container's log, or all, in batches as they arrive.

        A line is the time (RFC 3339, UTC, nanoseconds), a space, and the program's output; for standard error,
        only the time. `follow` continues with new lines until the container stops.
        """

    def file(self, container: str, path: str) -> File | None:
        """Return one file of a container's volume by its path there, or None if it does not exist."""

    def events(self) -> AbstractContextManager[Iterator[Event]]:
        """Follow the events of containers, networks and images from when the context is entered.

        Of the reading methods, only those that run `fwctl` cause events (`exec_start`). The iterator blocks until
        the next event, and ends when the engine stops or any thread leaves the context.
        """

    def close(self) -> None:
        """Close the connections to the engine."""


class EngineWriter(EngineReader, Protocol):
    """Everything that can be changed. Code that makes decisions never holds this interface."""

    def load_image(self, archive: Iterator[bytes], size: int, on_progress: ProgressCallback) -> None:
        """Load an image from a tar of about `size` bytes."""

    def pull_image(self, reference: str, on_progress: ProgressCallback) -> None:
        """Pull an image by its digest reference."""

    def remove_image(self, reference: str) -> None:
        """Remove an image, unless it is gone or in use."""

    def remove_volume(self, volume: str) -> None:
        """Remove a volume, unless it is gone or in use."""

    def create_network(self, spec: NetworkSpec) -> None:
        """Create a network."""

    def remove_network(self, network: str) -> None:
        """Remove a network by its id or name."""

    def create_container(self, spec: ContainerSpec) -> str:
        """Create a container with its files, without starting it, and return its id.

        Raises:
            ConflictError: when the name is taken.
        """

    def start(self, container: str) -> None:
        """Start a stopped container."""

    def stop(self, container: str, seconds: int = STOP_SECONDS) -> None:
        """Stop a container if it runs, and kill it after `seconds`."""

    def unpause(self, container: str) -> None:
        """Unpause a container."""

    def rename(self, container: str, name: str) -> None:
        """Rename a container."""

    def remove(self, container: str) -> None:
        """Stop a container if it runs, and remove it with its volume, unless it is gone."""

    def connect(self, network: str, container: str, address: str) -> None:
        """Connect a container to a network at an address, or at one that the engine chooses if it is empty."""

    def disconnect(self, network: str, container: str) -> None:
        """Disconnect a container from a network."""

    def put_files(self, container: str, files: Files) -> None:
        """Write files into a container's volume, in place."""

    def run_helper(
        self,
        container: str,
        arguments: Sequence[str],
        on_line: Callable[[Any], None],
        silence: float,
        *,
        sent: bytes = b"",
    ) -> None:
        """Run a verb of `fwctl` in a running container, and pass each JSON line to `on_line` when it is printed.

        `silence` is as in `ask_helper`. `sent` goes to the verb's standard input, which no event, inspection or
        file of the engine contains; the verb reads all of it before it prints anything.

        Raises:
            EngineError: when it fails; the context has its error output.
        """
