"""Where the octets of a secret are: in everything that a stack shows, keeps or sends, and in its processes.

Whoever administers the engine's machine looks: in memory, in the engine's own files, and in packets on bridges.
"""

import base64
import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import APIClient

from devkit.peers import Peer, Peers

_ETHERNET, _IPV4, _TCP = 14, b"\x08\x00", 6


def forms(text: str) -> Iterator[str]:
    """Yield a text as it is, and what base64 makes of it wherever it is within something else."""
    yield text
    for shift in range(3):
        whole = base64.b64encode(b"x" * shift + text.encode()).decode()
        yield whole[4 * ((shift + 2) // 3) : len(whole) // 4 * 4 - 4]


def header_forms(token: str) -> frozenset[str]:
    """Return the forms of a token, and of the header in which it is sent."""
    return frozenset(form for value in (token, f"Bearer {token}") for form in forms(value))


@dataclass(frozen=True)
class Found:
    """What a search has come to: the places of each needle, and how much was read."""

    places: dict[str, set[str]]
    octets: int

    def of(self, needles: Collection[str]) -> set[str]:
        """Return the places that have one of these needles."""
        return {place for needle in needles for place in self.places.get(needle, ())}

    def files(self, needles: Collection[str]) -> set[str]:
        """Return the files among these places."""
        return {place for place in self.of(needles) if place.startswith("/")}


@dataclass
class Capture:
    """The packets on bridges: their octets, and those of each TCP stream together, by bridge."""

    summary: dict[str, Any] = field(default_factory=dict)
    packets: list[dict[str, Any]] = field(default_factory=list)

    def on(self, bridge: str, port: int | None = None) -> Iterator[bytes]:
        """Yield the packets on a bridge, then its streams; with a port, only the streams to it and from it."""
        streams: dict[tuple[int, bytes, bytes], bytes] = defaultdict(bytes)
        for each in self.packets:
            if each["bridge"] != bridge:
                continue
            packet = base64.b64decode(each["data"])
            if port is None:
                yield packet
            if packet[12:14] == _IPV4 and packet[23] == _TCP:
                segment = _ETHERNET + (packet[_ETHERNET] & 15) * 4
                ports, end = packet[segment : segment + 4], _ETHERNET + int.from_bytes(packet[16:18])
                content = packet[segment + (packet[segment + 12] >> 4) * 4 : end]
                streams[each["interface"], packet[26:34], ports] += content
        for (_, _, ports), content in streams.items():
            if port is None or port.to_bytes(2) in {ports[:2], ports[2:]}:
                yield content


class Administrator:
    """Whoever administers the engine's machine."""

    def __init__(self, docker: APIClient, peers: Peers) -> None:
        """Start a container with all of an administrator's means."""
        self._docker, self._peers = docker, peers
        self.engine_folder = str(docker.info()["DockerRootDir"])
        self._inside: Peer = peers.administrator(folder=self.engine_folder)

    def process(self, container: str) -> str:
        """Return the id of a container's first process on the engine's machine."""
        return str(self._docker.inspect_container(container)["State"]["Pid"])

    def remove(self, container: str, path: str) -> None:
        """Delete a file of a running container, wherever it is mounted from.

        Raises:
            RuntimeError: when it can't be deleted.
        """
        if not self._inside.ask("remove", f"/proc/{self.process(container)}/root{path}").ok:
            raise RuntimeError(f"{path} is still in {container}")

    def search(
        self, needles: Collection[str], *, containers: Collection[str], since: float, engine: bool = False
    ) -> Found:
        """Look for needles in the memory of containers' processes, and in files that have changed since a time.

        The files are those that the processes see, with all that is mounted there, and those of the engine if
        asked. The needles are told on standard input, so they are in no argument and in no event of the engine.

        Raises:
            RuntimeError: when something can't be read.
        """
        processes = [self.process(each) for each in containers]
        roots = [str(Path("/proc", each, "root")) for each in processes]
        folders = [*(f"{each}/." for each in roots), *[self.engine_folder] * engine]
        answer = self._inside.ask(
            "search",
            *(word for each in needles for word in ("--needle", each)),
            *(word for each in processes for word in ("--processes", each)),
            *(word for each in folders for word in ("--folder", each)),
            *("--since", f"{since:.3f}"),
        )
        if not answer.ok:
            raise RuntimeError(f"the search has failed: {answer.last}")
        places: dict[str, set[str]] = defaultdict(set)
        for each in answer.lines[:-1]:
            places[each["needle"]].add(each["place"])
        return Found(places, answer.last["octets"])

    @contextmanager
    def capturing(self, *networks: str) -> Iterator[Capture]:
        """Capture all packets on the bridges of networks, which are known after the end."""
        sniffer = self._peers.administrator("sniff", *map(self.bridge, networks))
        found = Capture()
        yield found
        *packets, found.summary = sniffer.stop().lines
        found.packets = [each for each in packets if each["event"] == "packet"]

    def bridge(self, network: str) -> str:
        """Return the name of a network's bridge on the engine's machine."""
        raw = self._docker.inspect_network(network)
        return str(raw["Options"].get("com.docker.network.bridge.name") or f"br-{raw['Id'][:12]}")


def shown(docker: APIClient, containers: Collection[str], began: float) -> Iterator[tuple[str, bytes]]:
    """Yield everything that an engine shows of containers, and its events, each with its place."""
    for name in containers:
        yield f"inspect {name}", json.dumps(docker.inspect_container(name)).encode()
        yield f"logs {name}", docker.logs(name)
        yield f"changes of {name}", json.dumps(docker.diff(name)).encode()
        yield f"export of {name}", b"".join(docker.export(name))
    events = docker.events(since=int(began), until=int(time.time()) + 1, decode=True)
    yield "events", json.dumps(list(events)).encode()
