"""The interface to an engine, in the model's terms: a reader, which can't change anything, and a writer.

`docker.py` connects to a real engine, `devkit/memory/engine.py` simulates one, and one contract suite tests both.
An engine's failure is raised as `EngineError` or its subclasses `NotFoundError` and `ConflictError`.
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
"""An empty set of files."""

ProgressCallback = Callable[[float], None]
"""A callback for the progress of a long operation. It receives the completed share, from 0 to 1."""


STOP_SECONDS = 5
"""How long a container may take to stop before it is killed."""


class EngineReader(Protocol):
    """Everything that can be read. `drift`, `status` and `--dry-run` only hold this interface."""

    def facts(self) -> EngineFacts:
        """Return the engine's properties, and the current routes of its machine."""

    def machine(self) -> Machine:
        """Return what the engine's machine has now: a virtual machine can be resized."""

    def networks(self) -> tuple[NetworkView, ...]:
        """Return all networks."""

    def listing(self) -> tuple[ContainerSummary, ...]:
        """Return a summary of every container, sorted by name: ours and others', in any state."""

    def container(self, container: str) -> ContainerView | None:
        """Return the container with exactly this name or id, or None. It need not be ours."""

    def own_images(self) -> tuple[OwnImage, ...]:
        """Return the images that some release of ours built, with the tags that it gave them."""

    def unused_volumes(self, project: str) -> tuple[VolumeView, ...]:
        """Return the volumes of this project that no container uses, sorted by name.

        They have lost their container, or have what agents trust (`labels.TRUST`).
        """

    def volumes(self) -> tuple[VolumeView, ...]:
        """Return all volumes."""

    def image(self, reference: str) -> ImageView | None:
        """Return an image by its id, tag or digest reference, or None if the engine does not have it."""

    def files(self, container: str, known: Files = NOTHING) -> Files:
        """Return the regular files and links in a container's volume. The content of a link is `-> TARGET`.

        A folder is included, by its absolute path, only if its mode or owner is not the usual one. For a file
        equal to the one in `known`, that object is returned, so large files are held in memory once.
        """

    def ask_helper(self, container: str, arguments: Sequence[str], silence: float, *, sent: bytes = b"") -> object:
        """Run a verb of `fwctl` that changes nothing in a running container.

        Returns the JSON of its one line, or None if it did not answer with one line.

        `silence` is for how many seconds it may say nothing. `clawker_fw.fwctl` has the verbs. What is `sent` goes
        to the verb's standard input.

        Raises:
            EngineError: when it fails; the context has its error output.
        """

    def removal(self, container: str) -> Future[int]:
        """Return what has a container's last exit code when it has been removed, however soon or late that is."""

    def last_words(self, container: str, lines: int) -> tuple[str, ...]:
        """Return the last lines of a container's log."""

    def clock(self) -> float:
        """Return the time of the engine's machine, in seconds since 1970."""

    def log(
        self, container: str, lines: int | None, *, follow: bool = False
    ) -> AbstractContextManager[Iterator[list[bytes]]]:
        """Read the last `lines` lines of a container's log, or all, several at a time as they arrive.

        A line is the time (RFC 3339, UTC, nanoseconds), a space, and what the program wrote. A line of standard
        error is only the time. `follow` continues with what is written from now on, until the container stops.
        """

    def file(self, container: str, path: str) -> File | None:
        """Return one file of a container's volume by its path there, or None if it does not exist."""

    def events(self) -> AbstractContextManager[Iterator[Event]]:
        """Follow the events of containers, networks and images from when the context is entered.

        Of the reading methods, only those that run `fwctl` cause events (`exec_start`). The iterator blocks until
        the next event, and ends when the engine goes away or any thread leaves the context.
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
        """Remove an image, unless it is gone or a container uses it by now."""

    def remove_volume(self, volume: str) -> None:
        """Remove a volume, unless it is gone or a container uses it by now."""

    def create_network(self, spec: NetworkSpec) -> None:
        """Create a network."""

    def remove_network(self, network: str) -> None:
        """Remove a network by its id, or by its name."""

    def create_container(self, spec: ContainerSpec) -> str:
        """Create a container with its files, without starting it, and return its id.

        Raises:
            ConflictError: when the name is taken.
        """

    def start(self, container: str) -> None:
        """Start a stopped container."""

    def stop(self, container: str, seconds: int = STOP_SECONDS) -> None:
        """Stop a container, and kill it after `seconds`. A container that does not run is left alone."""

    def unpause(self, container: str) -> None:
        """Unpause a container."""

    def rename(self, container: str, name: str) -> None:
        """Rename a container."""

    def remove(self, container: str) -> None:
        """Stop a container if it runs, and remove it with its volume, unless it is gone."""

    def connect(self, network: str, container: str, address: str) -> None:
        """Connect a container to a network at a given address, or at one that the engine chooses."""

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

        `silence` is as in `ask_helper`. What is `sent` goes to the verb's standard input, where no event, no
        inspection and no file of the engine's has it. Such a verb reads all of it before it prints anything.

        Raises:
            EngineError: when it fails; the context has its error output.
        """
