"""Finds hosts from docker contexts and addresses, and asks all of them in parallel."""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from clawker_fw.background import in_background
from clawker_fw.engine import client_config
from clawker_fw.engine.locate import DEFAULT_ADDRESS, DEFAULT_SOURCE, EngineLocation, locate
from clawker_fw.errors import EngineError, FirewallError

BY_ADDRESS = "--host"
"""The source of a host that an option names by its address."""


class HostVerdict(StrEnum):
    """The verdict on a host: that on its stack, or why there is none."""

    CURRENT = "current"
    DRIFTED = "drifted"
    OBSERVING = "observing"
    OPEN = "open"
    UNKNOWN = "unknown"
    NO_STACK = "no-stack"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a host could not be asked, or its answer not be used: an error as values."""

    code: str
    message: str
    context: tuple[str, ...]
    hint: str

    @classmethod
    def of(cls, error: FirewallError) -> "Trouble":
        """Return an error as values."""
        return cls(error.code, error.message, error.context, error.hint)


@dataclass(frozen=True, slots=True)
class StackRelease:
    """The release that made a stack: its version and its build, if the stack says."""

    version: str | None
    build: str | None
    installed: bool
    """Whether it is the one that compares."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host, with its engine's location or the error in finding it."""

    name: str
    place: EngineLocation | EngineError

    @property
    def option(self) -> tuple[str, str]:
        """The option that chooses this engine in a command, and its value."""
        by_address = isinstance(self.place, EngineLocation) and self.place.source == BY_ADDRESS
        return (BY_ADDRESS if by_address else "--context"), self.name


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A docker context that is left out: another one is of the same engine, or `same_as` is "" without an engine.

    Only the context `default` is left out without an engine, since it exists without anybody's choice.
    """

    name: str
    same_as: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts, sorted by name, and the contexts that are left out."""

    hosts: tuple[Host, ...]
    left_out: tuple[LeftOut, ...] = ()


def named(contexts: Sequence[str], addresses: Sequence[str], environment: Mapping[str, str]) -> Hosts:
    """Return the named hosts without duplicates. Raise EngineError for an unknown context or invalid address."""
    hosts = [Host(name, locate(None, name, environment)) for name in dict.fromkeys(contexts)]
    hosts += [
        Host(text, replace(locate(text, None, environment), source=BY_ADDRESS))
        for text in dict.fromkeys(addresses)
    ]
    return Hosts(_by_name(hosts))


def all_contexts(environment: Mapping[str, str]) -> Hosts:
    """Return a host per context of the docker CLI, without those of the same engine.

    A context that names no engine is a host without a location. A context that a user made is preferred to
    `default`, which is left out next to others if it is not set and no engine listens there.

    Raises:
        EngineError: when the CLI's configuration can't be read.
    """
    hosts: list[Host] = []
    left_out: list[LeftOut] = []
    by_engine: dict[tuple[str, str], str] = {}
    for name in sorted(
        client_config.contexts(environment), key=lambda context: context == client_config.DEFAULT_CONTEXT
    ):
        try:
            place = locate(None, name, environment)
        except EngineError as error:
            hosts.append(Host(name, error))
            continue
        if hosts and place.address == DEFAULT_ADDRESS and place.source == DEFAULT_SOURCE and not _listening(place):
            left_out.append(LeftOut(name, ""))
            continue
        same = by_engine.setdefault(_engine(place), name)
        if same == name:
            hosts.append(Host(name, place))
        else:
            left_out.append(LeftOut(name, same))
    return Hosts(_by_name(hosts), tuple(left_out))


def _listening(place: EngineLocation) -> bool:
    """Return whether a program listens at a unix socket, or may listen, if we lack the permission to check."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(place.address.removeprefix("unix://"))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def _engine(place: EngineLocation) -> tuple[str, str]:
    """Return an engine's identity: its address, and the certificates that verify it."""
    kind, _, path = place.address.partition("://")
    address = f"{kind}://{os.path.realpath(path)}" if kind == "unix" else place.address
    return address, str(place.tls.folder) if place.tls else ""


def _by_name(hosts: Iterable[Host]) -> tuple[Host, ...]:
    return tuple(sorted(hosts, key=lambda host: host.name))


_Host = TypeVar("_Host")
_Answer = TypeVar("_Answer")

_AT_ONCE = 16
"""How many hosts are asked in parallel. With more, the threads wait for each other (measured)."""


def ask_all(
    hosts: Sequence[_Host], ask: Callable[[_Host], _Answer], late: Callable[[_Host], _Answer], seconds: float
) -> list[_Answer]:
    """Ask all hosts, and return their answers in the order of the hosts.

    A host that takes longer than `seconds`, not counting the wait for its turn, gets the answer `late`. Threads
    that still wait for a host do not block the program's exit, unlike an executor's.
    """
    turns = threading.Semaphore(_AT_ONCE)

    def answer(host: _Host) -> _Answer:
        with turns:
            try:
                return in_background(ask, host).result(seconds)
            except TimeoutError:
                return late(host)

    return [answering.result() for answering in [in_background(answer, host) for host in hosts]]
