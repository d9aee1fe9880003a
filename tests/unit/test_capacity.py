"""What a sibling may use of the Docker host, and what follows from it."""

from dataclasses import replace
from typing import Any

import pytest

from clawker_fw.errors import SettingsError
from clawker_fw.model.differences import Cause, Verdict
from clawker_fw.model.engines import Machine
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.settings.values import ResourceSettings, SiblingResources, parse_memory
from clawker_fw.stack import coredns
from clawker_fw.stack.capacity import Capacity
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.envoy import sibling as envoy
from devkit import stacks
from devkit.memory.engine import MemoryEngine

MIB, GIB = 1 << 20, 1 << 30
LARGE = Machine(processors=64, memory=256 * GIB)


def of_envoy(machine: Machine, **chosen: int) -> Capacity:
    """Return what Envoy may use on a machine with these settings."""
    return envoy.capacity(ResourceSettings(envoy=SiblingResources(**chosen)), machine)


def of_coredns(machine: Machine, **chosen: int) -> Capacity:
    """Return what CoreDNS may use on a machine with these settings."""
    return coredns.capacity(ResourceSettings(coredns=SiblingResources(**chosen)), machine)


@pytest.mark.parametrize(("there", "used"), [(1, 1), (8, 8), (64, 8), (0, 2)])
def test_processors_by_default(there: int, used: int) -> None:
    """As many as there are, up to 8; an engine that does not tell is taken for a small one."""
    machine = Machine(there, 64 * GIB)
    assert of_envoy(machine).processors == of_coredns(machine).processors == used
    assert of_envoy(machine, processors=12).processors == 12


@pytest.mark.parametrize(
    ("gibibytes", "proxy", "resolver"),
    [
        (256, 2048, 512),
        (3.8, 2048, 512),
        (2.9, 1024, 256),
        (1.9, 1024, 256),
        (0.4, 512, 128),
        (0, 2048, 512),
    ],
)
def test_memory_by_default(gibibytes: float, proxy: int, resolver: int) -> None:
    """It has few values, in steps far from the usual sizes of machines: a little more or less is the same."""
    for reported in (0.98, 1, 1.02) if gibibytes > 0 and abs(gibibytes - 3) > 0.11 else (1,):
        machine = Machine(2, int(gibibytes * GIB * reported))
        assert of_envoy(machine).memory == proxy * MIB
        assert of_coredns(machine).memory == resolver * MIB


def test_all_bounds_follow_from_the_memory() -> None:
    """More memory means more connections, more processors fewer, and nothing exceeds the container's memory."""
    for memory in (512 * MIB, GIB, 2 * GIB, 16 * GIB):
        before = None
        for processors in (1, 2, 4, 8):
            given = of_envoy(LARGE, memory=memory, processors=processors)
            assert given.connections * bounds.A_CONNECTION < bounds.heap(memory)
            assert given.connections * bounds.SOCKETS + bounds.heap(memory) < memory
            assert bounds.open_files(given.connections, processors) < 1 << 20
            assert before is None or given.connections < before
            before = given.connections
    assert of_envoy(LARGE, memory=GIB).connections < of_envoy(LARGE, memory=2 * GIB).connections
    assert of_coredns(LARGE, memory=64 * MIB).connections == 128


def test_a_small_memory_has_few_processors_by_default() -> None:
    """A setting for the memory alone is never refused because of a default."""
    given = of_envoy(LARGE, memory=400 * MIB)
    assert 1 < given.processors < 8
    assert 2 * given.connections >= of_envoy(LARGE, memory=400 * MIB, processors=1).connections


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"connections": 100_000}, "`connections: 100000`"),
        ({"memory": 64 * MIB}, "64MiB"),
        ({"memory": 512 * MIB, "processors": 128}, "`processors: 128`"),
        ({"memory": 512 * MIB, "processors": 1, "connections": 5000}, "`processors: 1` and `connections: 5000`"),
    ],
)
def test_too_little_memory(chosen: dict[str, int], words: str) -> None:
    """The error says what would be enough, and that is enough."""
    with pytest.raises(SettingsError) as caught:
        of_envoy(LARGE, **chosen)
    assert caught.value.code == "resources-too-little"
    assert words in caught.value.message
    enough = caught.value.hint.partition("at least ")[2].split()[0].rstrip(".,")
    resources = ResourceSettings(envoy=SiblingResources(**chosen | {"memory": parse_memory(enough)}))
    assert envoy.capacity(resources, LARGE).connections >= chosen.get("connections", 1)


def test_the_resolver_has_an_error_of_its_own() -> None:
    """Its connections may take half of its memory."""
    assert of_coredns(LARGE, connections=1024).connections == 1024
    with pytest.raises(SettingsError) as caught:
        of_coredns(LARGE, connections=1025)
    assert "`resources.coredns.memory`" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"weights": False}, {"cpu_shares"}),
        ({"swap_limit": False}, {"memory_swap"}),
        ({"runtime": "nvidia"}, {"runtime"}),
    ],
)
def test_what_a_machine_can_not_do_is_done_without(
    change: dict[str, Any], fields: set[str], memory: MemoryEngine, up: Blueprint
) -> None:
    """Siblings are made with what the machine can do, and one that changes is the cause of a difference."""
    memory.has = replace(memory.has, **change)
    found = pipeline.compare(memory, up).diff.findings
    assert {each.field for each in found} == fields
    assert {each.cause for each in found} == {Cause.MACHINE}
    seen = stacks.converged(memory, up)
    assert seen.diff.verdict is Verdict.CURRENT
