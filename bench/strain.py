"""What an attack does to both siblings: their memory, health and restarts, read from outside.

Needs a private engine, whose processes are visible under its root.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from docker import APIClient, errors

from devkit.firewall import SIBLINGS, Firewall
from devkit.host import client
from devkit.processes import program

_EVERY_SECONDS = 0.2
_LONGEST_SECONDS = 10
_MEGABYTE = 1e6


@dataclass
class Strain:
    """What was seen of the siblings during an attack."""

    peak_megabytes: dict[str, float] = field(default_factory=dict)
    charged: dict[str, float] = field(default_factory=dict)
    """What was charged to Envoy's container when that was most. See `Siblings.charged`."""

    unhealthy: set[str] = field(default_factory=set)
    longest_answer_ms: float = 0
    """Of Envoy's admin interface, which its main thread serves."""


@dataclass(frozen=True)
class Siblings:
    """Both siblings of a stack on a private engine."""

    docker: APIClient
    firewall: Firewall

    def process(self, sibling: str) -> Path:
        """Return the folder below /proc of Envoy or CoreDNS."""
        return program(self.docker, self.firewall.container(sibling))

    def main_thread_seconds(self) -> float:
        """Return the processor time that Envoy's main thread has used."""
        envoy = self.process("envoy")
        _, _, fields = (envoy / "task" / envoy.name / "stat").read_text().rpartition(") ")
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def lives(self) -> dict[str, tuple[str, str, int]]:
        """Return what changes when a sibling is replaced, dies or is restarted."""
        found = {}
        for sibling in SIBLINGS:
            with _missing():
                raw = self.docker.inspect_container(self.firewall.container(sibling))
                found[sibling] = (raw["Id"], raw["State"]["StartedAt"], raw["RestartCount"])
        return found

    def megabytes(self) -> dict[str, float]:
        found = {}
        for sibling, process in self._processes().items():
            with _missing():
                status = (process / "status").read_text()
                if resident := status.partition("VmRSS:")[2].split():  # a program that is ending has none
                    found[sibling] = int(resident[0]) * 1024 / _MEGABYTE
        return found

    def charged(self) -> dict[str, float]:
        """Return what the kernel charges to Envoy's container, in megabytes: with version 2, sockets as well.

        It kills the container's processes at the limit, and counts them.
        """
        charged: dict[str, float] = {}
        with _missing():
            _, _, path = (self._processes()["envoy"] / "cgroup").read_text().strip().rpartition("0::/")
            group = Path("/sys/fs/cgroup", path)
            stat = dict(line.split() for line in (group / "memory.stat").open())
            events = dict(line.split() for line in (group / "memory.events").open())
            charged |= {
                "current": int((group / "memory.current").read_text()) / _MEGABYTE,
                "max": int((group / "memory.max").read_text()) / _MEGABYTE,
                "sockets": int(stat["sock"]) / _MEGABYTE,
                "killed": int(events["oom_kill"]),
            }
        return charged

    @contextmanager
    def observed(self) -> Iterator[Strain]:
        strain, ended = Strain(), threading.Event()
        thread = threading.Thread(target=self._observe, args=(strain, ended), daemon=True)
        thread.start()
        try:
            yield strain
        finally:
            ended.set()
            thread.join()

    def _observe(self, strain: Strain, ended: threading.Event) -> None:
        with closing(client(self.firewall.host)) as docker:
            while True:
                with _missing():
                    strain.longest_answer_ms = max(strain.longest_answer_ms, self._asked_admin())
                for sibling, megabytes in self.megabytes().items():
                    strain.peak_megabytes[sibling] = max(megabytes, strain.peak_megabytes.get(sibling, 0))
                charged = self.charged()
                if charged.get("current", 0) > strain.charged.get("current", 0):
                    strain.charged = charged
                for sibling in SIBLINGS:
                    with _missing():
                        state = docker.inspect_container(self.firewall.container(sibling))["State"]
                        if state.get("Health", {}).get("Status") == "unhealthy":
                            strain.unhealthy.add(sibling)
                if ended.wait(_EVERY_SECONDS):
                    return

    def _asked_admin(self) -> float:
        """Return how long Envoy's admin interface takes to answer, in milliseconds."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_LONGEST_SECONDS)
            began = time.monotonic()
            asking.connect(str(self._processes()["envoy"] / "root" / "tmp" / "envoy" / "admin.sock"))
            asking.sendall(b"GET /server_info HTTP/1.1\r\nHost: admin\r\n\r\n")
            with suppress(TimeoutError):
                asking.recv(1)
            return (time.monotonic() - began) * 1000

    def _processes(self) -> dict[str, Path]:
        found = {}
        for sibling in SIBLINGS:
            with _missing():
                found[sibling] = self.process(sibling)
        return found


@contextmanager
def _missing() -> Iterator[None]:
    with suppress(errors.DockerException, OSError, ValueError):  # none, or just started
        yield


def returned(before: Mapping[str, float], now: Mapping[str, float], margin: float) -> bool:
    """Whether the memory of each sibling is at most `margin` megabytes, or a tenth, more than before."""
    return all(now.get(name, 0) <= max(value + margin, 1.1 * value) for name, value in before.items())
