"""What an attack does to both siblings: their memory, health, restarts and processor time, read from outside.

Needs a private engine, whose processes are visible under its root.
"""

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from docker import APIClient, errors

from bench.quiet import ticks
from clawker_fw.stack.envoy.sibling import ADMIN_SOCKET
from devkit.engines import PrivateEngine
from devkit.firewall import SIBLINGS, Firewall
from devkit.host import client

_EVERY_SECONDS = 0.5
_MEGABYTE = 1e6
_STATISTICS = (
    r"dns_cache|downstream_cx_(active|overflow|overload)|downstream_rq_(active|too_large)|no_filter_chain"
    r"|^overload\..*(active|shed|pressure)|cx_rejected|upstream_(cx|rq)_(active|overflow|pending)|memory_allocated"
    r"|access_log.*denied|watchdog"
)


@dataclass
class Strain:
    """What was seen of the siblings during an attack."""

    peak_megabytes: dict[str, float] = field(default_factory=dict)
    unhealthy: set[str] = field(default_factory=set)
    statistics: dict[str, int] = field(default_factory=dict)
    """Envoy's, the highest value of each, as far as it answered."""


@dataclass(frozen=True)
class Siblings:
    """Both siblings of a stack on a private engine."""

    docker: APIClient
    firewall: Firewall
    engine: PrivateEngine

    def lives(self) -> dict[str, tuple[str, str, int]]:
        """Return what changes when a sibling is replaced, dies or is restarted."""
        found = {}
        for sibling in SIBLINGS:
            with _missing():
                raw = self.docker.inspect_container(self.firewall.container(sibling))
                found[sibling] = (raw["Id"], raw["State"]["StartedAt"], raw["RestartCount"])
        return found

    def megabytes(self) -> dict[str, float]:
        """Return the resident memory of each program that runs."""
        found = {}
        for sibling, process in self._processes().items():
            with _missing():
                status = (process / "status").read_text()
                if resident := status.partition("VmRSS:")[2].split():  # a program that is ending has none
                    found[sibling] = int(resident[0]) * 1024 / _MEGABYTE
        return found

    def processor_seconds(self) -> dict[str, float]:
        """Return the processor time so far of Envoy's threads, of CoreDNS and the engine, and of nobody."""
        daemon = self.engine.root / "proc" / (self.engine.folder / "pid").read_text().strip()
        tick = os.sysconf("SC_CLK_TCK")
        spent = {"idle": ticks()[0] / tick}
        for name, process in {**self._processes(), "dockerd": daemon}.items():
            with _missing():
                for thread in (process / "task").iterdir():
                    with _missing():
                        before, _, after = (thread / "stat").read_text().rpartition(")")
                        which = f"{name}: {before.partition('(')[2]}" if name == "envoy" else name
                        fields = after.split()
                        spent[which] = spent.get(which, 0) + (int(fields[11]) + int(fields[12])) / tick
        return spent

    @contextmanager
    def observed(self) -> Iterator[Strain]:
        """Observe the siblings until the context ends."""
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
                for sibling, megabytes in self.megabytes().items():
                    strain.peak_megabytes[sibling] = max(megabytes, strain.peak_megabytes.get(sibling, 0))
                for sibling in SIBLINGS:
                    with _missing():
                        state = docker.inspect_container(self.firewall.container(sibling))["State"]
                        if state.get("Health", {}).get("Status") == "unhealthy":
                            strain.unhealthy.add(sibling)
                for name, value in self.statistics().items():
                    strain.statistics[name] = max(value, strain.statistics.get(name, 0))
                if ended.wait(_EVERY_SECONDS):
                    return

    def statistics(self) -> dict[str, int]:
        """Return Envoy's statistics that tell of its load, or nothing if it does not answer at once."""
        values = (
            line.rpartition(": ") for line in self._admin(f"/stats?usedonly&filter={_STATISTICS}").splitlines()
        )
        return {name: int(value) for name, _, value in values if value.isdigit() and value != "0"}

    def heap(self) -> dict[str, float]:
        """Return what Envoy says of its memory in megabytes, or nothing if it does not answer at once."""
        text = self._admin("/memory")
        return {name: int(value) / _MEGABYTE for name, value in json.loads(text).items()} if text else {}

    def _admin(self, path: str) -> str:
        process = self._processes().get("envoy")
        if process is None:
            return ""
        try:
            with closing(_Admin(str(process / "root") + ADMIN_SOCKET)) as admin:
                admin.request("GET", path, headers={"Host": "admin"})
                return admin.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""

    def _processes(self) -> dict[str, Path]:
        found = {}
        for sibling in SIBLINGS:
            with _missing():
                process = self.docker.inspect_container(self.firewall.container(sibling))["State"]["Pid"]
                if process:
                    found[sibling] = self.engine.root / "proc" / str(process)
        return found


class _Admin(http.client.HTTPConnection):
    """HTTP over a unix socket. The host is the socket's path."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(2)
        self.sock.connect(self.host)


@contextmanager
def _missing() -> Iterator[None]:
    """Go on without what has just ended."""
    with suppress(errors.DockerException, OSError):
        yield


def returned(before: Mapping[str, float], now: Mapping[str, float], margin: float) -> bool:
    """Whether the memory of each sibling is at most `margin` megabytes, or a tenth, more than before."""
    return all(now.get(name, 0) <= max(value + margin, 1.1 * value) for name, value in before.items())
