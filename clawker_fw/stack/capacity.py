"""The processors and memory of a sibling: those in the settings, otherwise a default by those of the Docker host.

The siblings' limits follow from them. The default for memory changes in wide steps, so that a host that reports a
little more or less after a restart changes nothing.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from clawker_fw.errors import SettingsError
from clawker_fw.model.engines import Machine
from clawker_fw.model.observed import ObservedSibling
from clawker_fw.model.stacks import Sibling
from clawker_fw.settings.values import SiblingResources
from clawker_fw.stack.files import read_record
from clawker_fw.stack.resources import SIBLING

_MEBIBYTE = 1 << 20

MOST_BY_DEFAULT = 8
"""The most processors that a sibling uses by default. Each of them takes descriptors and memory."""

_ROOM = 3 / 2
"""The host's memory must be this many times Envoy's default, so that enough is left for the agents."""

_STEP = 16 * _MEBIBYTE

_FULL, _MOST_HALVINGS = 2048 * _MEBIBYTE, 2

Room = Callable[[int, int], int]
"""The number of connections by a sibling's memory in bytes and its processors. May be negative."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The resources of a container."""

    processors: int
    memory: int
    """Bytes."""
    connections: int
    """Of all agents together."""
    by_machine: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    """The names of the values that depend on the Docker host."""


def allot(sibling: Sibling, chosen: SiblingResources, machine: Machine, usual: int, room: Room) -> Capacity:
    """Return the resources of a sibling. `usual` is its memory in bytes on a host with enough memory.

    Raises:
        SettingsError: if the settings need more than the host has, or than fits into the memory.
    """
    halvings = sum(0 < machine.memory < _ROOM * (_FULL >> halving) for halving in range(_MOST_HALVINGS))
    memory = chosen.memory or usual >> halvings
    processors = chosen.processors or _processors(machine, memory, room)
    if chosen.memory and machine.memory and chosen.memory > machine.memory:
        raise SettingsError(
            "resources-not-there",
            f"`resources.{sibling}.memory` is {written(chosen.memory)}, and the Docker host has "
            f"{written(machine.memory)}.",
            hint="The kernel would kill a container that uses more memory than there is. Set it lower.",
        )
    most = room(memory, processors)
    if most < (chosen.connections or 1):
        raise _too_little(sibling, memory, processors, chosen.connections, room)
    given = {"processors": chosen.processors, "memory": chosen.memory}
    by_machine = tuple(name for name, value in given.items() if value is None)
    return Capacity(processors, memory, chosen.connections or most, by_machine)


def _processors(machine: Machine, memory: int, room: Room) -> int:
    """Return the number of the host's processors, but at most as many as take half of the memory."""
    most = max(1, min(machine.processors or 2, MOST_BY_DEFAULT))  # 2 if the engine does not report it
    return max(
        number for number in range(1, most + 1) if number == 1 or 2 * room(memory, number) >= room(memory, 1)
    )


def _too_little(
    sibling: Sibling, memory: int, processors: int, connections: int | None, room: Room
) -> SettingsError:
    needed = connections or 1
    enough = next(size for size in range(memory, 1 << 50, _STEP) if room(size, processors) >= needed)
    what = f"`processors: {processors}`" + (f" and `connections: {connections}`" if connections else "")
    return SettingsError(
        "resources-too-little",
        f"The memory of {sibling}, {written(memory)}, has no room for {what}.",
        hint=f"Set `resources.{sibling}.memory` to at least {written(enough)}.",
    )


def written(size: int) -> str:
    """Return a number of bytes as it may stand in the settings."""
    for unit, bytes_ in (("GiB", 1 << 30), ("MiB", _MEBIBYTE), ("KiB", 1 << 10)):
        if size >= bytes_:
            return f"{size / bytes_:.2f}".rstrip("0").rstrip(".") + unit
    return str(size)


def running(sibling: ObservedSibling) -> Capacity | None:
    """Return the resources of an existing container, or None if they can't be read from it."""
    shape = sibling.container.shape
    words = {Sibling.ENVOY: " ".join(shape.command), Sibling.COREDNS: " ".join(shape.environment)}
    match = re.search(r"(?:--concurrency |\bGOMAXPROCS=)(\d+)", words[sibling.sibling])
    with suppress(KeyError, TypeError, ValueError):
        limits = read_record(sibling.files[SIBLING].content)["limits"]
        return Capacity(int(match[1]), shape.memory, int(limits["all_connections"])) if match else None
    return None
