"""Where the bytes of a secret are: in memory, in the engine's files and in packets on bridges of this machine."""

import base64
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from docker import APIClient

from devkit.engines import install, machine_root
from devkit.processes import processes
from devkit.starting import running

_AT_ONCE, _OVERLAP = 1 << 20, 1 << 10
"""How much is read at once, and how much of it again: more than any needle has."""

_HIGHEST = 1 << 63
"""The end of the addresses that a file can have: above are the kernel's own pages."""

_KERNELS = {"proc", "sys"}
"""Folders of a container in which the kernel answers."""


def forms(text: str) -> Iterator[str]:
    """Yield a text as it is, and what base64 makes of it wherever it is within something else."""
    yield text
    for shift in range(3):
        whole = base64.b64encode(b"x" * shift + text.encode()).decode()
        yield whole[4 * ((shift + 2) // 3) : len(whole) // 4 * 4 - 4]


def header_forms(token: str) -> frozenset[str]:
    return frozenset(form for value in (token, f"Bearer {token}") for form in forms(value))


class Administrator:
    """Whoever administers the Docker host."""

    def __init__(self, host: str, docker: APIClient) -> None:
        self._docker = docker
        self._root = machine_root(host)
        self.engine_folder = str(docker.info()["DockerRootDir"])

    def process(self, container: str) -> str:
        return str(self._docker.inspect_container(container)["State"]["Pid"])

    def search(
        self, needles: Collection[str], *, containers: Collection[str], since: float, engine: bool = False
    ) -> set[tuple[str, str]]:
        """Return needles with their places: memory of containers' processes, and files changed since a time.

        Files are those that the processes see, and the engine's if asked. Raises OSError for unreadable ones.
        """
        contents = self._contents(containers, since, engine=engine)
        return {(needle, place) for place, text in contents for needle in needles if needle.encode() in text}

    def _contents(self, containers: Collection[str], since: float, *, engine: bool) -> Iterator[tuple[str, bytes]]:
        for process in (process for each in containers for process in processes(self._docker, each)):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                yield from _of_process(process)
        roots = [self._root / "proc" / self.process(each) / "root" for each in containers]
        for folder in (*roots, *[self._root / self.engine_folder[1:]] * engine):
            for path in _changed_files(folder, since):
                with suppress(FileNotFoundError), path.open("rb") as file:
                    for part in _parts(file.read):
                        yield f"/{path.relative_to(self._root)}", part

    @contextmanager
    def capturing(self, *networks: str) -> Iterator[dict[str, bytes]]:
        """Capture all packets on the bridges of networks, which are known by network after the end."""
        install({"tcpdump": "tcpdump"})
        found: dict[str, bytes] = {}
        with tempfile.TemporaryDirectory() as folder:
            with ExitStack() as stack:
                for network in networks:
                    raw = self._docker.inspect_network(network)
                    bridge = raw["Options"].get("com.docker.network.bridge.name") or f"br-{raw['Id'][:12]}"
                    options = ("-B", "65536", "-Z", "root", "-i", bridge, "-w", f"{folder}/{network}")
                    command = ["nsenter", f"--net={self._root}/proc/1/ns/net", "tcpdump", *options]
                    stack.enter_context(_tcpdump(command, Path(folder, f"{network}.log")))
                yield found
            for network in networks:
                if "\n0 packets dropped" not in Path(folder, f"{network}.log").read_text():
                    raise AssertionError(f"packets on {network} are missing")
                found[network] = Path(folder, network).read_bytes()


def _tcpdump(command: Sequence[str], log: Path) -> AbstractContextManager[None]:
    return running(command, log, lambda: b"listening" in log.read_bytes())


def _of_process(process: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all memory of a process that it can read itself, and the environment that it was started with."""
    command = (process / "cmdline").read_text().replace("\0", " ").strip()
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            place, mode, *_ = line.split()
            first, end = (int(each, 16) for each in place.split("-"))
            if mode.startswith("r") and end < _HIGHEST:
                with suppress(OSError):  # it is a device's, or has gone since
                    memory.seek(first)
                    for part in _parts(memory.read, end - first):
                        yield f"memory of {command}", part
    yield f"environment of {command}", (process / "environ").read_bytes()


def _changed_files(folder: Path, since: float) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for at, folders, files in os.walk(folder, onerror=failed):
        if Path(at) == folder:
            folders[:] = [each for each in folders if each not in _KERNELS]
        for each in files:
            with suppress(FileNotFoundError):
                path = Path(at, each)
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and found.st_mtime >= since:
                    yield path


def _parts(read: Callable[[int], bytes | None], size: int = sys.maxsize) -> Iterator[bytes]:
    """Yield so many octets, or all that there are, in parts that overlap."""
    part = b""
    while size > 0 and (more := read(min(size, _AT_ONCE))):
        size -= len(more)
        part = part[-_OVERLAP:] + more
        yield part


def shown(docker: APIClient, containers: Collection[str], began: float) -> Iterator[tuple[str, bytes]]:
    """Yield everything that an engine shows of containers, and its events, each with its place."""
    for name in containers:
        yield f"inspect {name}", json.dumps(docker.inspect_container(name)).encode()
        yield f"logs {name}", docker.logs(name)
        yield f"changes of {name}", json.dumps(docker.diff(name)).encode()
        yield f"export of {name}", b"".join(docker.export(name))
    events = docker.events(since=int(began), until=int(time.time()) + 1, decode=True)
    yield "events", json.dumps(list(events)).encode()
