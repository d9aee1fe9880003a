"""An engine: its properties, its machine and its events."""

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Inside:
    """The container of the engine in which this program runs, by its id.

    `host` is the name of the engine's machine. `mounts` are the places in the container that are not its own, each
    with what it is on that machine. `host_network` is whether the container shares the machine's network.
    """

    container: str
    host: str
    mounts: tuple[tuple[str, str], ...] = ()
    host_network: bool = False

    def on_host(self, path: str) -> str | None:
        """Return where a file of this container is on the engine's machine, or None if it is only in here."""
        return _moved(path, self.mounts)

    def in_here(self, path: str) -> str | None:
        """Return where a file of the engine's machine is in this container, or None if it is not."""
        return _moved(path, tuple((source, target) for target, source in self.mounts))


def _moved(path: str, places: tuple[tuple[str, str], ...]) -> str | None:
    """Return a path below another folder: that which belongs to the nearest folder of the path."""
    said = PurePosixPath(path)
    around = [(folder, other) for folder, other in places if said.is_relative_to(folder)]
    if not around:
        return None
    folder, other = max(around, key=lambda each: len(PurePosixPath(each[0]).parts))
    return str(PurePosixPath(other, said.relative_to(folder)))


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The properties of an engine. `architecture` is in Go's terms (`amd64`, `arm64`), `api_version` is in use.

    `routes` are the destinations of its machine's routes, including its own networks; they are only known for a
    local engine. `endpoint` is its address, and `named_by` the option, variable or context that named it.
    `kernel` is the version of its machine's kernel. That may be a virtual machine, also for a local engine.
    `plain` is whether others on the way there can read along. `inside` is the container of this engine that the
    program runs in, if it runs in one.
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
        """Whether the network of the engine's machine is the one that this program sees."""
        return self.local and (self.inside is None or self.inside.host_network)


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine's machine has: processors, and bytes of memory. Either is 0 if the engine does not say.

    `forwards` is whether its kernel forwards packets of containers, as far as the engine says.
    `weights` is whether its kernel can give containers weights on the processors, `swap_limit` whether it can
    limit their swap. `runtime` is the engine's default runtime, or empty if that is runc.
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
    `names` are the names of the object, including a former one. `container` is the id of the container, also for
    the events in which it joins or leaves a network. `words` are the command of an `exec_start`, or the health
    status. `run` is the id of a program that is started in a container (`exec_start`) or has ended (`exec_die`).
    """

    kind: str
    action: str
    names: tuple[str, ...]
    container: str = ""
    words: str = ""
    run: str = ""
