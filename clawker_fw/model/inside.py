"""Where this program runs, if that is a container of the very engine that it asks."""

from dataclasses import dataclass
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
