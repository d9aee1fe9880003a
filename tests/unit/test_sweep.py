"""Runs that end at any call of any plan: the old containers serve, and the next run finishes."""

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, cast
from unittest.mock import Mock

import pytest

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError, FirewallError
from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.model.differences import Verdict
from clawker_fw.reconcile import converge
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.observe import observe
from clawker_fw.stack.container import ATTEMPT
from devkit import stacks
from devkit.faults import READS, WRITES, Fault, Faulty, Killed
from devkit.memory.engine import MemoryEngine

Engine = Faulty[MemoryEngine]
Tamper = Callable[[MemoryEngine], None]


@dataclass(frozen=True)
class Scenario:
    """A state before a run, the desired state, and whether agents must be served throughout."""

    before: dict[str, Any] | None
    wanted: dict[str, Any]
    tamper: Tamper = lambda _: None
    served: bool = True


def _shape(name: str) -> Tamper:
    def tamper(memory: MemoryEngine) -> None:
        inside = memory.inside(f"clawker-{name}")
        inside.spec = replace(inside.spec, shape=replace(inside.spec.shape, pids=1))

    return tamper


def _off(network: str, name: str) -> Callable[[MemoryEngine], None]:
    return lambda memory: memory.disconnect(f"clawker-{network}", f"clawker-{name}")


def _waste(memory: MemoryEngine) -> None:
    memory.lost_volumes["orphan"] = "clawker"
    memory.retag("clawker-fw/envoy:old", "sha256:" + "0" * 64)
    _shape("coredns")(memory)


def _impostor(memory: MemoryEngine) -> None:
    image = memory.inside("clawker-envoy").image
    spec = ContainerSpec("agent", image, {}, Shape((), (), {"clawker-net": "10.213.1.53"}))
    memory.start(memory.create_container(spec))


ONE, TWO = {"rules": ("a.test",)}, {"rules": ("a.test", "b.test")}
SCENARIOS = {
    "from nothing": Scenario(None, ONE, served=False),
    "an upgrade of both": Scenario(ONE, TWO | {"otel": {"infra_port": 1}}),
    "a stale envoy": Scenario(ONE, ONE, _shape("envoy")),
    "a stale envoy and another rule": Scenario(ONE, TWO, _shape("envoy")),
    "a stopped envoy": Scenario(ONE, ONE, lambda memory: memory.stop("clawker-envoy"), served=False),
    "a stopped coredns": Scenario(ONE, ONE, lambda memory: memory.stop("clawker-coredns"), served=False),
    "an envoy without a way out": Scenario(ONE, ONE, _off("egress", "envoy"), served=False),
    "a missing envoy": Scenario(ONE, ONE, lambda memory: memory.remove("clawker-envoy"), served=False),
    "a renamed envoy": Scenario(ONE, ONE, lambda memory: memory.rename("clawker-envoy", "other")),
    "leftovers": Scenario(ONE, ONE, _waste),
    "an impostor": Scenario(ONE, ONE, _impostor),
    "other networks": Scenario(ONE, ONE | {"network": {"subnet": "10.99.0.0/20"}}, served=False),
}
CALLS = {Fault.KILL: WRITES, Fault.LOSE: WRITES, Fault.FAIL: READS | WRITES}


def _blueprint(rules: tuple[str, ...], **settings: Any) -> Blueprint:  # noqa: ANN401 - any of the settings
    """Return the blueprint for any of these engines, with shared rendering."""
    return stacks.blueprint(MemoryEngine().facts(), *rules, **settings)


def _points(scenario: Scenario) -> Iterator[tuple[int, MemoryEngine]]:
    """Yield the number of each call at which a run may end, and the engine before that run."""
    prepared = MemoryEngine()
    if scenario.before is not None:
        stacks.converged(prepared, _blueprint(**scenario.before))
        scenario.tamper(prepared)
    for point in count(1):
        yield point, copy.deepcopy(prepared)


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_that_ends_at_any_call_is_finished_by_the_next(
    name: str, fault: Fault, pytestconfig: pytest.Config
) -> None:
    """At every point, served agents are still served, and one more run makes everything current.

    The engine fails at a third of all calls that may fail, or at all with `--thorough N`.
    """
    scenario, all_points = SCENARIOS[name], fault is not Fault.FAIL or pytestconfig.getoption("--thorough") > 1
    wanted = _blueprint(**scenario.wanted)
    for point, memory in _points(scenario):
        if not all_points and point % 3 != 1:
            continue
        engine = Faulty(memory, CALLS[fault])
        engine.arm(fault, point)
        with suppress(Killed, FirewallError):  # a failure that only shortens a drain does not fail the run
            stacks.converged(cast("EngineWriter", engine), wanted)
        if not engine.hit:
            break
        where = f"{point}: {fault} at {engine.hit}"
        assert not scenario.served or stacks.serving(memory), where
        memory.remove("clawker-lock")
        assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT, where
        assert stacks.found(memory, wanted) == set(), where
        assert [each.name for each in memory.listing() if each.name != "agent"] == [
            "clawker-coredns",
            "clawker-envoy",
        ], where
        assert memory.lost_volumes == {}, where
    assert point > 1


def test_an_image_that_cannot_be_had_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a run killed at any call, a missing image stops the next run before it changes anything."""
    scenario = SCENARIOS["an upgrade of both"]
    other = scenario.wanted | {"images": {"envoy": f"registry.test/envoy@sha256:{'0' * 64}"}}
    wanted, pulled = (_blueprint(**each) for each in (scenario.wanted, other))
    for point, memory in _points(scenario):
        engine = Faulty(memory, WRITES)
        engine.arm(Fault.KILL, point)
        with suppress(Killed):
            stacks.converged(cast("EngineWriter", engine), wanted)
        if not engine.hit:
            break
        memory.remove("clawker-lock")
        before = _everything(memory)
        monkeypatch.setattr(memory, "pull_image", Mock(side_effect=EngineError("image-not-pulled", "No.")))
        with pytest.raises(EngineError) as caught:
            stacks.converged(memory, pulled)
        assert caught.value.code == "image-not-pulled", point
        assert _everything(memory) == before, point
    assert point > 1


def _everything(memory: MemoryEngine) -> object:
    """Return everything on the engine except the record of the last attempt."""
    containers = {each.name: copy.deepcopy(memory.inside(each.name)) for each in memory.listing()}
    for inside in containers.values():
        inside.files.pop(ATTEMPT, None)
    return containers, memory.networks(), dict(memory.lost_volumes)


@pytest.mark.parametrize("fault", list(Fault))
def test_taking_down_can_end_at_any_call(fault: Fault) -> None:
    """The next `down` completes an interrupted `down`; the next `run` reverts it."""
    wanted = _blueprint(**ONE)
    for point, memory in _points(Scenario(ONE, ONE)):
        engine = Faulty(memory, CALLS[fault])
        engine.arm(fault, point)
        run_context = RunContext(lambda _: None)
        with suppress(Killed, FirewallError):
            converge.take_down(cast("EngineWriter", engine), "clawker", run_context, detach=False)
        if not engine.hit:
            break
        memory.remove("clawker-lock")
        if point % 2:
            assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT, point
        converge.take_down(memory, "clawker", run_context, detach=False)
        assert observe(memory, "clawker").absent, point
        assert memory.listing() == (), point
    assert point > 1
