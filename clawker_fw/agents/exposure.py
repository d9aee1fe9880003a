"""Finds agents that can write files that decide, such as the settings, and the paths that lead to the engine.

An agent can write a file if the file, or a folder on its path, is mounted writable in its container. A folder
stands for all of its content. Only this module inspects this machine's own files. For a remote engine, these paths
mean nothing. In a container of the engine, they are translated to the host's paths, whose links can't be followed.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from clawker_fw.model.containers import Mount
from clawker_fw.model.engines import EngineFacts, Inside
from clawker_fw.model.observed import Observed
from clawker_fw.model.volumes import VolumeView

HINT = (
    "Make the mount read-only, or move the file outside of agents' mounts. --config names another settings file."
)

_ENGINE_FOLDER = "/var/lib/docker"
_SOCKETS = (
    *("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock"),
    # Docker Desktop's, in its machine
    *("/run/host-services/docker.proxy.sock", "/run/guest-services/docker.sock"),
)
_HOST = (
    *("/dev", "/proc", "/sys"),
    *("/run", "/var/run"),  # the sockets of services: D-Bus, systemd, container engines, those of each user
    *("/tmp/.X11-unix", "/tmp/.ICE-unix"),  # noqa: S108 - the desktop's sockets
    *("/var/lib/containerd", "/var/lib/containers", "/var/lib/crio", "/var/lib/kubelet", "/var/lib/rancher"),
    "/var/snap/docker",
)
"""Paths to the host's kernel, devices, services or other containers, dangerous even when mounted read-only."""

_HOST_PROGRAMS = (
    *("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"),
    *("/var/lib/systemd", "/var/spool"),
)
"""Paths that the host runs, or reads as root. Who can write them controls the host."""

_HARMLESS = frozenset(map(Path, ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")))
"""Devices that every container has anyway. `/dev/null` is often mounted over files to hide them."""

_SHARED = "/host_mnt"
"""The prefix under which Docker Desktop's virtual machine has this machine's files, and of mounts' sources."""

_OF_NETWORKS = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "fuse.")
"""Prefixes of the types of network file systems."""

_MOST_LINKS = 40
"""The kernel's limit on symbolic links (path_resolution(7))."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """A mount through which a container can change a file that decides."""

    container: str
    source: Annotated[str, Field(serialization_alias="mount")]
    """The folder or file on the host."""
    target: str
    """The path in the container."""
    file: str
    """The file that the container can write through the mount."""
    certain: Annotated[bool, Field(exclude=True)] = True
    """Whether the path of the mount says so by itself. Links on it may be another container's work."""

    def __str__(self) -> str:
        """Return a sentence for people."""
        return f"{self.container} can write {self.file}: {self.source} is mounted at {self.target}"


def exposures(observed: Observed, files: Iterable[Path]) -> tuple[Exposure, ...]:
    """Return every mount through which an agent can write one of the files, with the first such file.

    Certain ones come first.
    """
    inside = observed.engine.inside
    if not observed.engine.local and not inside:
        return ()
    agents = {agent.id for agent in observed.agents}
    mounts = [
        (container.name, mount)
        for container in observed.listing
        if container.id in agents
        for mount in mounts_of(container.mounts, container.volumes, observed.volumes)
        if mount.source.startswith("/") and not mount.read_only
    ]
    if not mounts:
        return ()
    reached = list(_exposures_here(mounts, files) if inside is None else _exposures_outside(mounts, files, inside))
    reached.sort(key=lambda exposure: not exposure.certain)
    first: dict[tuple[str, str, str], Exposure] = {}
    for exposure in reached:
        first.setdefault((exposure.container, exposure.source, exposure.target), exposure)
    return tuple(first.values())


def mounts_of(
    mounts: Iterable[Mount], names: Mapping[str, str], volumes: Mapping[str, VolumeView]
) -> Iterator[Mount]:
    """Yield a container's mounts, and the host folders behind its volumes (`names` by target) as further ones."""
    read_only = {}
    for mount in mounts:
        yield mount
        read_only[mount.target] = mount.read_only
    for target, name in names.items():
        if folder := _bound_folder(volumes[name]) if name in volumes else "":
            yield Mount("bind", target, folder, read_only=read_only.get(target, False))


def is_of_network(kind: str) -> bool:
    """Whether this type of file system belongs to another machine."""
    return kind.lower().startswith(_OF_NETWORKS)


def _bound_folder(volume: VolumeView) -> str:
    """Return the host's folder behind a volume (`o=bind`), or ""."""
    options = volume.options.get("o", "").split(",")
    bound = volume.driver == "local" and not {"bind", "rbind"}.isdisjoint(options)
    return volume.options.get("device", "") if bound else ""


def names_host(source: str, *, read_only: bool) -> bool:
    """Whether a mount leads to the host: its path, a folder above it, or a path below it is listed."""
    places = _HOST if read_only else (*_HOST, *_HOST_PROGRAMS)
    for spelling in _named_here(source):
        path = Path("/", os.path.normpath(spelling).lstrip("/"))
        if path not in _HARMLESS and any(
            path.is_relative_to(place) or Path(place).is_relative_to(path) for place in places
        ):
            return True
    return False


def links_to_host(source: str, *, read_only: bool) -> bool:
    """Whether a mount's path is a link on this machine that leads to the host."""
    return any(names_host(_real(named), read_only=read_only) for named in _named_here(source))


def opens_device(volume: VolumeView) -> bool:
    """Whether a local volume is neither a folder, memory, nor a network file system.

    Its file system is then on a device of the host, or built from host folders (`overlay`).
    """
    kind = volume.options.get("type", "")
    if volume.driver != "local" or not volume.options.get("device") or _bound_folder(volume):
        return False
    return kind != "tmpfs" and not is_of_network(kind)


def _exposures_here(mounts: list[tuple[str, Mount]], files: Iterable[Path]) -> Iterator[Exposure]:
    for file in files:
        passed = ways(file)
        identities = {identity for way in passed if (identity := _identity(way))}
        folders = {file.absolute(), Path(_real(file))} if _is_folder(file) else set()
        for container, mount in mounts:
            named = _named_here(mount.source)
            sources = {Path(_real(path)) for path in named}
            within = _within(sources, folders)
            if within or sources & passed or any(_identity(source) in identities for source in sources):
                certain = not named.isdisjoint(passed) or _within(named, folders)
                yield Exposure(container, mount.source, mount.target, str(file), certain=certain)


def _exposures_outside(
    mounts: list[tuple[str, Mount]], files: Iterable[Path], inside: Inside
) -> Iterator[Exposure]:
    """Yield exposures, seen from inside a container, where links of the host can't be followed."""
    for file in files:
        place = inside.on_host(_real(file))
        outside = filter(None, (inside.on_host(str(way)) for way in ways(file)))
        passed = {way for host_path in outside for way in ways_by_name(host_path)}
        folders = {Path(place)} if place and _is_folder(file) else set()
        for container, mount in mounts:
            source = Path(os.path.normpath(mount.source))
            if source in passed or _within({source}, folders):
                yield Exposure(container, mount.source, mount.target, place or str(file))


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder, or can't be examined."""
    try:
        return path.is_dir()
    except OSError:
        return True


def _within(paths: Iterable[Path], folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def ways_by_name(path: str) -> set[Path]:
    """Return a path and all folders above it, without reading links."""
    normalized = Path(os.path.normpath(path))
    return {normalized, *normalized.parents}


def _named_here(source: str) -> set[Path]:
    """Return the paths on this machine that a mount's source may mean."""
    path = Path(source)
    return {path, Path("/", path.relative_to(_SHARED))} if path.is_relative_to(_SHARED) else {path}


@dataclass(frozen=True, slots=True)
class EngineWays:
    """The sockets and folders on a Docker host that lead to its engine. `here`: it is this machine."""

    paths: frozenset[Path]
    here: bool

    def named_by(self, source: str) -> bool:
        """Whether a path is one of them, without following links."""
        # `normpath` keeps two leading slashes
        path = Path("/", os.path.normpath(source).lstrip("/"))
        return path in self.paths or path.is_relative_to(_ENGINE_FOLDER)

    def reached_by(self, source: str) -> bool:
        """Whether a path is one of them, or a link to one. An agent may have made the link."""
        named = _named_here(source) if self.here else ()
        return self.named_by(source) or any(self.named_by(_real(path)) for path in named)


def engine_ways(engine: EngineFacts) -> EngineWays:
    """Return the paths that lead to an engine."""
    socket = engine.endpoint.removeprefix("unix://")
    if engine.inside:
        place = engine.inside.on_host(socket) if engine.local else None
        names = [*_SOCKETS, *([place] if place else []), _ENGINE_FOLDER]
        return EngineWays(frozenset(way for name in names for way in ways_by_name(name)), here=False)
    here = engine.local
    own = [socket, f"{_SHARED}{socket}"] if here else []
    paths = [Path(socket) for socket in (*_SOCKETS, *own, _ENGINE_FOLDER)]
    return EngineWays(frozenset(way for path in paths for way in (path, *ways(path))), here)


def ways(file: Path) -> set[Path]:
    """Return everything that a path depends on: the file, each link on the path, and all of their folders."""
    passed: set[Path] = set()
    left, links = list(file.absolute().parts), 0
    at = Path(left.pop(0))
    passed.add(at)
    while left:
        part = left.pop(0)
        step = at.parent if part == ".." else at / part
        passed.add(step)
        target = ""
        with suppress(OSError):
            target = str(step.readlink())
        if target and links < _MOST_LINKS:
            links += 1
            parts = Path(target).parts
            at = Path(parts[0]) if target.startswith("/") else at
            left = [*(parts[1:] if target.startswith("/") else parts), *left]
        else:
            at = step
    return passed


def _real(path: Path | str) -> str:
    """Return a path without links. An unreadable link, as in another process's `/proc`, stays unchanged."""
    try:
        return os.path.realpath(path)
    except OSError:
        return str(path)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return a path's device and inode, equal through any mount; None if it can't be read."""
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None
