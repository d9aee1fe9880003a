"""The environment of a benchmark: an engine, a stack of its own, and the containers around it."""

import os
import platform
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import APIClient

from devkit.engines import private_engine
from devkit.firewall import RULES, Firewall, remove_project
from devkit.host import client, some_engine
from devkit.peers import Peers, peers

NAMES = ("a.test", "h.test")
REPLACE = ("run", "--force-recreate")


@dataclass(frozen=True)
class Stage:
    """The environment of one benchmark, and what its options say if that is not the default.

    `runs` is the number of measurements, `seconds` the duration of an attack, and `only` words of what to measure.
    """

    docker: APIClient
    firewall: Firewall
    peers: Peers
    kind: str | None
    runs: int | None
    seconds: float | None = None
    only: tuple[str, ...] = ()

    def up(self) -> Firewall:
        self.firewall.write(*RULES)
        self.firewall.run()
        self.firewall.origin(self.peers, NAMES)
        return self.firewall

    def circumstances(self) -> dict[str, Any]:
        return {
            "engine": self.docker.version()["Version"],
            "kind": self.kind or "reachable",
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "load": os.getloadavg()[0],
        }


@contextmanager
def engine(kind: str | None) -> Iterator[str]:
    """Yield the address of an engine: a private one of the given kind, or the one that is reachable."""
    if kind is None:
        with some_engine() as address:
            yield address
    else:
        with private_engine(kind) as private:
            yield private.host


@contextmanager
def stage(host: str, kind: str | None, runs: int | None) -> Iterator[Stage]:
    """Yield an environment with a project of its own, and remove everything afterwards."""
    project = f"bench{secrets.token_hex(3)}"
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        docker = stack.enter_context(closing(client(host)))
        stack.callback(remove_project, docker, project)
        around = stack.enter_context(peers(docker))
        yield Stage(docker, Firewall(host, project, Path(folder)), around, kind, runs)
