"""What reading asks of an engine, in the Docker SDK's words, and who asks it.

An engine on this machine is asked over its socket by `local.py`. The SDK asks all others, and does all writing. It
takes longer to import than a current stack takes to look at, so nothing here imports it before it is needed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

from clawker_fw.engine.local import PREFIX, Answer, LocalClient
from clawker_fw.engine.locate import EngineLocation
from clawker_fw.engine.patience import Patience


class Asks(Protocol):
    """The questions. What is in the answers is documented at https://docs.docker.com/reference/api/engine/.

    Each raises an exception of one of the types in `translation.failures`.
    """

    def in_version(self, version: str) -> Self:
        """Return a client that asks in a version of the API, over the same connections."""

    def close(self) -> None:
        """Close all connections."""

    def version(self, *, api_version: bool = True) -> Answer:
        """Return what the engine says of its version. Without `api_version`, it is asked in none."""

    def info(self) -> Answer:
        """Return what the engine says of itself and of its machine."""

    def networks(self) -> Sequence[Answer]:
        """Return all networks."""

    def containers(self, *, all: bool) -> Sequence[Answer]:  # noqa: A002 - the SDK's word
        """Return the running containers, or all of them."""

    def inspect_container(self, container: str) -> Answer:
        """Return everything about a container."""

    def images(self, *, filters: Mapping[str, Sequence[str]]) -> Sequence[Answer]:
        """Return the images that pass filters."""

    def inspect_image(self, image: str) -> Answer:
        """Return everything about an image."""

    def volumes(self, filters: dict[str, Any] | None = None) -> Answer:
        """Return the volumes that pass filters."""

    def nodes(self, filters: dict[str, Any] | None = None) -> Sequence[Answer]:
        """Return the nodes of the swarm whose manager the engine is."""

    def services(self, filters: dict[str, Any] | None = None) -> Sequence[Answer]:
        """Return the services of the swarm that pass filters."""

    def tasks(self, filters: dict[str, Any] | None = None) -> Sequence[Answer]:
        """Return the tasks of the swarm that pass filters."""

    def get_archive(self, container: str, path: str, chunk_size: int | None = None) -> tuple[Iterator[bytes], Any]:
        """Return a tar of what is at a path in a container, and what the engine says of that."""

    def exec_create(self, container: str, cmd: list[str], *, stdin: bool = False) -> Answer:
        """Prepare a program in a container."""

    def exec_output(self, identity: str, silence: float | None) -> AbstractContextManager[Callable[[int], bytes]]:
        """Start a program by the id of its exec, and yield what reads its output, so many octets at a time.

        What reads raises `TimeoutError` when there is no output for `silence` seconds, and `ConnectionError` when
        the connection breaks.
        """

    def exec_inspect(self, exec_id: str) -> Answer:
        """Return what the engine knows of such a program."""


def open_asking(place: EngineLocation, version: str, patience: Patience) -> Asks:
    """Return what asks an engine in a version of the API. No request is sent yet.

    Raises:
        EngineError: when the docker CLI's configuration makes no sense to the SDK.
    """
    if place.address.startswith(PREFIX):
        return LocalClient(place.address, version, patience)
    from clawker_fw.engine.transport import open_client  # noqa: PLC0415 - imports the SDK

    return open_client(place, version, patience)


def asked_version(client: Asks) -> Mapping[str, Any]:
    """Return the engine's answer to `/version`.

    Raises:
        ConnectionError: when it has not the form of an engine's answer.
    """
    try:
        found: object = client.version(api_version=False)
    except (LookupError, TypeError) as error:  # the SDK does not check the form of an answer
        raise ConnectionError("It does not answer as an engine does") from error
    if isinstance(found, dict):
        return found
    raise ConnectionError("It does not answer as an engine does")
