"""The containers around a firewall: origins, the simulated internet, and agents. Both run `devkit/peer`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from docker import APIClient, errors
from docker.types import LogConfig

from clawker_fw.stack.image_tar import BuiltImage, Entry
from devkit.floor import lock
from devkit.host import load
from devkit.processes import processes
from devkit.session import Session
from devkit.waiting import until
from hatch_build import compile_program

SOURCE = Path(__file__).with_name("peer")
BUILT = SOURCE.parent.parent / ".dev"

KEEPALIVE = ("drive", "--kept", "--interval", "100ms")
"""One client sends requests on one connection. The output reports each of them."""

WAITING = ("https://a.test/?wait=0.01", "http://h.test/?wait=0.01")
"""Requests of RULES that take 10 ms, as long as one to a near host takes."""

_TAIL = 50
"""How many of a log's last lines are read, unless more of them are new."""

KEPT_LOADS = tuple(("--kept", "--rate", str(len(WAITING) / seconds)) for seconds in (0.1, 0.2, 1, 3))
"""Open loops of requests on connections that are kept, from ten a second on each to one in three."""


@cache
def peer_program(architecture: str) -> Path:
    target = BUILT / f"peer-linux-{architecture}"
    with lock(BUILT / "peer.lock"):  # another process may be compiling it
        compile_program(SOURCE, target, architecture)
    return target


@cache
def _image(architecture: str) -> BuiltImage:
    entries = (Entry("peer", peer_program(architecture), 0o755),)
    return BuiltImage("clawker-fw/peer", "dev", architecture, entries, labels={})


@dataclass(frozen=True)
class Answer:
    """The output of one command of the program: its JSON lines and exit code."""

    code: int
    lines: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, code: int, output: str) -> "Answer":
        return cls(code, tuple(json.loads(line) for line in output.splitlines()))

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def last(self) -> dict[str, Any]:
        """The last line, which is the summary."""
        return self.lines[-1]

    @property
    def kind(self) -> str:
        """The kind of failure, or an empty string."""
        return str((self.last.get("error") or {}).get("kind", ""))


class _Log:
    """The lines of a container's log, of which only new ones are read: an origin of many attacks has thousands."""

    def __init__(self) -> None:
        self._reading = Lock()
        self._last = b""
        """The last line that was read, with its time."""
        self._lines: tuple[dict[str, Any], ...] = ()

    def lines(self, read: Callable[[int | Literal["all"]], bytes]) -> tuple[dict[str, Any], ...]:
        """Return all lines. `read` returns the log's last lines, each after its time and a space."""
        with self._reading:
            stamped = read(_TAIL).splitlines()
            if self._last not in stamped:
                stamped = read("all").splitlines()
            new = stamped[stamped.index(self._last) + 1 :] if self._last else stamped
            if new:
                self._last = new[-1]
                self._lines += tuple(json.loads(line.partition(b" ")[2]) for line in new)
            return self._lines


@dataclass(frozen=True)
class Peer:
    """A running container with the program."""

    client: APIClient
    container: str
    name: str
    _idle: list[Session] = field(default_factory=list, compare=False, repr=False)
    """Sessions in the container in which no command runs. Commands at the same time need one each."""
    _log: _Log = field(default_factory=_Log, compare=False, repr=False)

    def ask(self, *arguments: str) -> Answer:
        session = self._session()
        session.begin(arguments)
        answer = Answer.of(*session.answer())
        self._idle.append(session)
        return answer

    @contextmanager
    def asking(self, *arguments: str) -> Iterator[Callable[[], Answer]]:
        """Run a command beside others. The function that is yielded has it end; an error in the block does too."""
        session = self._session()
        session.begin(arguments)

        def end() -> Answer:
            session.ask_to_end()
            return Answer.of(*session.answer())

        try:
            yield end
        finally:
            with suppress(OSError):  # as when the container is gone
                session.ask_to_end()
            session.close()

    def _session(self) -> Session:
        with suppress(IndexError):
            while True:
                session = self._idle.pop()
                if session.alive():
                    return session
                session.close()
        return Session(self.client, self.container)

    def get(self, url: str, *options: str) -> Answer:
        return self.ask("get", url, *options)

    def address(self, network: str) -> str:
        networks = self.client.inspect_container(self.container)["NetworkSettings"]["Networks"]
        return str(networks[network]["IPAddress"])

    def process(self) -> Path:
        """Return the folder below /proc of one of its processes, on an engine of this machine."""
        return next(processes(self.client, self.container))

    def remove(self) -> None:
        while self._idle:
            self._idle.pop().close()
        with suppress(errors.NotFound):
            self.client.remove_container(self.container, force=True, v=True)

    def finish(self) -> Answer:
        """Wait until the container's own command has ended, and return its output."""
        code = self.client.wait(self.container, timeout=120)["StatusCode"]
        return Answer(code, self.said())

    def stop(self) -> Answer:
        """Ask the container's own command to end, and return its output."""
        self.client.kill(self.container, signal="SIGTERM")
        return self.finish()

    def said(self) -> tuple[dict[str, Any], ...]:
        """Return the JSON lines that the container's own command has written so far."""
        return self._log.lines(
            lambda tail: self.client.logs(self.container, stderr=False, timestamps=True, tail=tail)
        )


class Peers:
    """Starts peers on one engine, and removes them at the end."""

    def __init__(self, client: APIClient) -> None:
        image = _image(client.version()["Arch"])
        load(client, image)
        self.client = client
        self.image = image.reference
        self._started: list[Peer] = []

    def origin(self, network: str, names: Sequence[str], *arguments: str) -> Peer:
        """Start an origin on a network with these names. The arguments name its ports."""
        peer = self.start("origin", *arguments, network=network, aliases=names)
        until(peer.said)  # it is ready
        return peer

    def agent(self, network: str, dns: str, *arguments: str, name: str | None = None) -> Peer:
        """Start an agent as a user would: on the agent network, with the firewall's DNS."""
        return self.start(*(arguments or ("wait",)), network=network, dns=dns, name=name)

    def start(
        self,
        *arguments: str,
        network: str,
        aliases: Sequence[str] = (),
        dns: str | None = None,
        name: str | None = None,
        address: str | None = None,
        capabilities: Sequence[str] = (),
        dropped: Sequence[str] = (),
        processor: int | None = None,
        weight: int | None = None,
        sysctls: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Peer:
        """Start the program in a container, on all processors or one (from 0), with a CPU `weight`."""
        endpoint = self.client.create_endpoint_config(aliases=list(aliases) or None, ipv4_address=address)
        created = self.client.create_container(
            self.image,
            command=["/peer", *arguments],
            name=name,
            labels=dict(labels or {}),
            host_config=self.client.create_host_config(
                network_mode=network,
                dns=[dns] if dns else None,
                cap_add=list(capabilities) or None,
                cap_drop=list(dropped) or None,
                cpuset_cpus=None if processor is None else str(processor),
                cpu_shares=weight,
                sysctls=dict(sysctls or {}),
                log_config=LogConfig(type=LogConfig.types.JSON),  # it is read, whatever the engine's default
            ),
            networking_config=self.client.create_networking_config({network: endpoint}),  # type: ignore[arg-type]
            use_config_proxy=False,
        )["Id"]
        peer = Peer(self.client, created, name or created[:12])
        self._started.append(peer)
        self.client.start(created)
        return peer

    def adopt(self, container: str) -> Peer:
        """Return a container that was started from the image by other means. It is removed with the others."""
        peer = Peer(self.client, container, container[:12])
        self._started.append(peer)
        return peer

    def remove_all(self) -> None:
        while self._started:
            self._started.pop().remove()


@contextmanager
def peers(client: APIClient) -> Iterator[Peers]:
    started = Peers(client)
    try:
        yield started
    finally:
        started.remove_all()
