"""An engine: its properties, its machine and its events."""

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Inside:
    """The container of the engine in which this program runs, by its id.

    `host` is the Docker host's name. `mounts` map paths in the container to paths on the host. `host_network` is
    whether the container shares the host's network.
    """

    container: str
    host: str
    mounts: tuple[tuple[str, str], ...] = ()
    host_network: bool = False

    def on_host(self, path: str) -> str | None:
        """Return the path on the Docker host of a file in this container, or None if it exists only here."""
        return _moved(path, self.mounts)

    def in_here(self, path: str) -> str | None:
        """Return the path in this container of a file on the Docker host, or None if it is not mounted."""
        return _moved(path, tuple((source, target) for target, source in self.mounts))


def _moved(path: str, places: tuple[tuple[str, str], ...]) -> str | None:
    """Return a path moved with the nearest folder above it; None if no folder contains it."""
    moved = PurePosixPath(path)
    around = [(folder, other) for folder, other in places if moved.is_relative_to(folder)]
    if not around:
        return None
    folder, other = max(around, key=lambda prefix: len(PurePosixPath(prefix[0]).parts))
    return str(PurePosixPath(other, moved.relative_to(folder)))


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The properties of an engine. `architecture` is in Go's terms (`amd64`, `arm64`), `api_version` is in use.

    `routes` are the destinations of its host's routes, including its own networks, only known for a local engine.
    `endpoint` is its address, and `named_by` the option, variable or context that named it. `kernel` is its host's
    version; even a local engine may run in a virtual machine. `plain` is whether others on the way can read along.
    `inside` is the engine's container in which this program runs, if any.
    """

    version: str
    api_version: str
    architecture: str
    routes: tuple[IPv4Network, ...] = ()
    endpoint: str = ""
    named_by: str = ""
    kernel: str = ""
    plain: bool = False
    inside: Inside | None = None

    @property
    def local(self) -> bool:
        """Whether the engine runs on this machine, according to its address."""
        return self.endpoint.startswith("unix://")

    @property
    def shares_network(self) -> bool:
        """Whether this program sees the Docker host's network."""
        return self.local and (self.inside is None or self.inside.host_network)


@dataclass(frozen=True, slots=True)
class Machine:
    """A Docker host's resources: processors, and bytes of memory. Either is 0 if unknown.

    `forwards`: its kernel forwards containers' packets, as far as the engine knows. `weights` and `swap_limit`:
    its kernel supports CPU weights and swap limits. `runtime` is the engine's default runtime, or empty for runc.
    """

    processors: int = 0
    memory: int = 0
    forwards: bool = True
    weights: bool = True
    swap_limit: bool = True
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of an engine. It is only a reason to compare, never a source of facts.

    `kind` is `container`, `network` or `image`, and `action` the engine's term (`die`, `disconnect`, `untag`, …).
    `names` are the object's names, including former ones. `container` is a container's id, also in network events.
    `words` are an `exec_start`'s command, or the health status. `run` is the id of an exec (`exec_start`,
    `exec_die`).
    """

    kind: str
    action: str
    names: tuple[str, ...]
    container: str = ""
    words: str = ""
    run: str = ""
