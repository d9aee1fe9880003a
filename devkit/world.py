"""A simulated internet for a private engine: an origin with public addresses, and DNS for it."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from devkit.engines import PrivateEngine
from devkit.peers import peer_program
from devkit.starting import own_network, wait_for

WORLD = "203.0.113.10"
"""The origin's address in TEST-NET-3 (RFC 5737), assigned in the engine's network namespace."""

HIDING = "pub.test"
"""The name behind which clients can hide others, for the origin."""

NAMESERVER = "203.0.113.53"
"""The DNS server that the engine is configured with."""


class Program:
    """The peer program, running in the engine's network. Its output goes to a file, so that it never blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._said: tuple[dict[str, Any], ...] = ()

    def said(self) -> tuple[dict[str, Any], ...]:
        with self._path.open("rb") as output:
            output.seek(self._read)
            whole, end, _ = output.read().rpartition(b"\n")
        if end:
            self._said += tuple(json.loads(line) for line in whole.splitlines())
            self._read += len(whole) + len(end)
        return self._said


class Internet:
    """A simulated internet without anything in it: addresses, programs and DNS in an engine's network."""

    def __init__(self, engine: PrivateEngine, folder: Path, architecture: str, stack: ExitStack) -> None:
        self.engine = engine
        self._folder = folder
        self._program = str(peer_program(architecture))
        self._stack = stack
        self.add(NAMESERVER)

    def add(self, *addresses: str) -> None:
        for address in addresses:
            network = ip_network(address)  # of one address
            self.engine.run_in_network(["ip", "address", "add", str(network), "dev", "lo"])

    def argv(self, *arguments: str, process: int | None = None) -> list[str]:
        """Return the command that runs the peer program in the engine's network, or in that of a process in it."""
        if process is None:
            return self.engine.network_argv(self._program, *arguments)
        return ["nsenter", f"--net={self.engine.root}/proc/{process}/ns/net", self._program, *arguments]

    def serve(self, *arguments: str, process: int | None = None, processor: int | None = None) -> Program:
        """Run the peer program until the end, on all processors or on one, counted from 0."""
        pinned = [] if processor is None else ["taskset", "--cpu-list", str(processor)]
        path = self._folder / f"{len(list(self._folder.iterdir()))}.log"
        with path.open("wb") as log:
            running = subprocess.Popen([*pinned, *self.argv(*arguments, process=process)], stdout=log)
        self._stack.callback(running.wait)
        self._stack.callback(running.terminate)
        program = Program(path)
        wait_for(running, lambda: any(line["event"] == "ready" for line in program.said()), path)
        return program

    def resolve(self, zone: Mapping[str, Sequence[str]], *options: str) -> Program:
        entries = ",".join(f"{name}={'+'.join(addresses)}" for name, addresses in zone.items())
        return self.serve("dns", "--listen", f"{NAMESERVER}:53", "--zone", entries, *options)


class World(Internet):
    """A simulated internet. `origin` listens at every address of the engine's network, and logs requests."""

    def __init__(self, engine: PrivateEngine, folder: Path, architecture: str, stack: ExitStack) -> None:
        super().__init__(engine, folder, architecture, stack)
        self.add(WORLD)
        ports = ("--http", "80,8080,2222", "--https", "443,853,8443", "--datagrams", f"{WORLD}:443")
        self.origin = self.serve("origin", "--name", "world", *ports, "--ech", HIDING, "--tell")


HOST, _BEYOND, _LENGTH = "198.51.100.1", "198.51.100.2", 24
"""The two ends of the line between the host and the internet (TEST-NET-2, RFC 5737)."""


class Beyond(Internet):
    """A server and a name server in a namespace that a cable connects with the engine's: the host forwards."""

    def __init__(
        self, engine: PrivateEngine, folder: Path, architecture: str, stack: ExitStack, *, routed: bool = False
    ) -> None:
        """Connect the host, and start the servers. A `routed` host need not masquerade."""
        holder = stack.enter_context(own_network())
        self._inside = ["nsenter", f"--net=/proc/{holder}/ns/net"]
        engine.run_in_network(
            ["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "host", "netns", str(holder)]
        )
        engine.run_in_network(["ip", "address", "add", f"{HOST}/{_LENGTH}", "dev", "uplink"])
        engine.run_in_network(["ip", "link", "set", "uplink", "up"])
        for command in (
            f"address add {_BEYOND}/{_LENGTH} dev host",
            "link set host up",
            "link set lo up",
            *([f"route add 10.0.0.0/8 via {HOST}"] if routed else []),
        ):
            subprocess.run([*self._inside, "ip", *command.split()], check=True)
        engine.run_in_network(["ip", "route", "add", "default", "via", _BEYOND])
        super().__init__(engine, folder, architecture, stack)
        self.add(WORLD)
        self.origin = self.serve("origin", "--name", "world", "--http", "80,2222,2223", "--https", "443", "--tell")
        zone = {f"{name}.test": [WORLD] for name in ("pub", "plain", "stream", "talk", "denied", "heard")}
        self.resolve(zone)
        self.names = self.serve(
            "dns", "--listen", f"{WORLD}:5300", "--verbose", "--zone", f"heard.test={WORLD},refused.test={WORLD}"
        )

    def add(self, *addresses: str) -> None:
        for address in addresses:
            subprocess.run(
                [*self._inside, "ip", "address", "add", str(ip_network(address)), "dev", "lo"], check=True
            )

    def argv(self, *arguments: str, process: int | None = None) -> list[str]:
        if process is not None:
            return super().argv(*arguments, process=process)
        return [*self._inside, self._program, *arguments]


@contextmanager
def world_around(engine: PrivateEngine, folder: Path, architecture: str) -> Iterator[World]:
    """Yield a simulated internet for an engine. The output of its programs goes to an empty folder."""
    with ExitStack() as stack:
        yield World(engine, folder, architecture, stack)
