"""Private engines joined in one swarm by a bridge in its own namespace, each with a name and a network.

All have their socket at the same path of their own file system: a service names one for all.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from docker import APIClient

from devkit.engines import PrivateEngine, private_engine
from devkit.host import client
from devkit.starting import own_network, pings

_SOCKET = "/run/docker.sock"
"""Where each engine has its socket, in its own file system."""

_SUBNET = "198.18.0"
_MANAGING = 2377


@dataclass(frozen=True)
class Node:
    """An engine in a swarm."""

    name: str
    address: str
    engine: PrivateEngine
    docker: APIClient = field(repr=False)

    def call(self, *arguments: str, check: bool = True, variables: Mapping[str, str] | None = None) -> str:
        """Run the docker CLI with this engine, and return its output, or raise `AssertionError` with it."""
        command = ["docker", "--host", self.engine.host, *arguments]
        environment = {**os.environ, **(variables or {})}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(arguments)} failed on {self.name}: {done.stdout}\n{done.stderr}")
        return done.stdout.strip()

    @property
    def answers(self) -> bool:
        return pings(self.engine.folder / "docker.sock")

    @cached_property
    def id(self) -> str:
        return str(self.docker.info()["Swarm"]["NodeID"])

    @property
    def leads(self) -> bool:
        return self.call("node", "inspect", "self", "--format", "{{.ManagerStatus.Leader}}", check=False) == "true"


@dataclass(frozen=True)
class Swarm:
    """The engines of one swarm. All are managers, so one of three may be away. The first has begun it."""

    nodes: tuple[Node, ...]

    @property
    def manager(self) -> Node:
        return next(each for each in self.nodes if each.answers)

    def on_each(self, work: Callable[[Node], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            return list(pool.map(work, self.nodes))

    def tasks(self, name: str) -> list[Any]:
        """Return the tasks of a service that are meant to run, the newest of each node."""
        listed = self.manager.docker.tasks({"service": name})  # type: ignore[no-untyped-call]
        return list(
            {each["NodeID"]: each for each in sorted(listed, key=lambda each: str(each["CreatedAt"]))}.values()
        )

    def told(self, name: str) -> str:
        columns = "{{.Node}} {{.DesiredState}} {{.CurrentState}} {{.Error}}"
        return self.manager.call("service", "ps", "--no-trunc", "--format", columns, name)


@contextmanager
def swarm(size: int = 3, disks: Mapping[int, str] | None = None) -> Iterator[Swarm]:
    """Yield engines in a swarm, and destroy them afterwards. `disks` are the sizes of some engines' data."""
    with ExitStack() as stack:
        wire = stack.enter_context(own_network("ip link add wire type bridge; ip link set wire up"))
        nodes = []
        for number in range(1, size + 1):
            engine = stack.enter_context(
                private_engine(
                    hosts=[f"unix://{_SOCKET}"],
                    commands=_cable(wire, number),
                    disk=(disks or {}).get(number - 1, ""),
                    name=f"node{number}",
                )
            )
            docker = stack.enter_context(closing(client(engine.host)))
            nodes.append(Node(f"node{number}", f"{_SUBNET}.{number}", engine, docker))
        first, *others = nodes
        first.call("swarm", "init", "--advertise-addr", first.address)
        token = first.call("swarm", "join-token", "--quiet", "manager")
        for each in others:
            each.call(
                "swarm", "join", "--advertise-addr", each.address, "--token", token, f"{first.address}:{_MANAGING}"
            )
        yield Swarm(tuple(nodes))


def _cable(wire: int, number: int) -> list[list[str]]:
    here, there = "wire", f"node{number}"
    return [
        ["ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", str(wire)],
        ["ip", "address", "add", f"{_SUBNET}.{number}/24", "dev", here],
        ["ip", "link", "set", here, "up"],
        ["nsenter", f"--net=/proc/{wire}/ns/net", "ip", "link", "set", there, "master", "wire", "up"],
    ]
