"""A run may start from an earlier comparison, but never uses it as the final check."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clawker_fw.engine.port import NOTHING
from clawker_fw.errors import SettingsError, SubnetTakenError
from clawker_fw.model.differences import Verdict
from clawker_fw.model.files import Files
from clawker_fw.model.networks import NetworkSpec
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.reconcile import converge, pipeline, plan
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.lock import Lock
from clawker_fw.reconcile.steps import ConvergeOptions, Plan
from clawker_fw.stack import images
from clawker_fw.stack.labels import ROLE
from devkit import stacks
from devkit.memory.engine import MemoryEngine


class Counting(MemoryEngine):
    """An engine that counts probes."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def files(self, container: str, known: Files = NOTHING) -> Files:
        self.looks += 1
        return super().files(container, known)


@pytest.fixture
def engine() -> Counting:
    """An engine with a stack that is up."""
    engine = Counting()
    stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test"))
    return engine


@pytest.fixture
def wanted(engine: Counting) -> Blueprint:
    """The desired state: one more rule, and replaced containers."""
    return stacks.blueprint(engine.facts(), "a.test", "b.test", otel={"infra_port": 1})


def converged(engine: Counting, wanted: Blueprint, seen: pipeline.Comparison | None) -> pipeline.Comparison:
    """Converge the stack, starting from an earlier comparison."""
    return converge.converge(engine, lambda: wanted, ConvergeOptions(), RunContext(lambda _: None), seen)


def test_the_plan_that_is_shown_is_performed(
    engine: Counting, wanted: Blueprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run plans once for the difference, and once more to verify that nothing is left."""
    plans: list[Plan] = []
    planning = plan.make_plan

    def counted(*given: Any) -> Plan:  # noqa: ANN401 - passed on
        plans.append(planning(*given))
        return plans[-1]

    monkeypatch.setattr(plan, "make_plan", counted)
    seen = pipeline.compare(engine, wanted)
    assert not seen.plan(ConvergeOptions()).empty
    converged(engine, wanted, seen)
    assert [each.empty for each in plans] == [False, True]


CHANGES: dict[str, Callable[[Counting, Blueprint], object]] = {
    "another run": lambda engine, wanted: stacks.converged(engine, wanted, ConvergeOptions(replace_all=True)),
    "stopped": lambda engine, _: engine.stop("clawker-envoy"),
    "removed": lambda engine, _: engine.remove("clawker-coredns"),
    "disconnected": lambda engine, _: engine.disconnect("clawker-net", "clawker-envoy"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_since_is_looked_at_again(engine: Counting, wanted: Blueprint, change: str) -> None:
    """The plan uses the state read under the lock."""
    seen = pipeline.compare(engine, wanted)
    CHANGES[change](engine, wanted)
    assert converged(engine, wanted, seen).diff.verdict is Verdict.CURRENT


def test_a_look_at_somebody_at_work_is_not_acted_on(engine: Counting, wanted: Blueprint) -> None:
    """A comparison made while another run held the lock is outdated."""
    image = images.lock_image(engine.facts())
    with Lock(engine, wanted.project, image):
        seen = pipeline.compare(engine, wanted)
    assert seen.observed.lock
    before = engine.looks
    converged(engine, wanted, seen)
    assert engine.looks - before == 2 * len(Sibling)


class Contested(MemoryEngine):
    """An engine on which foreign networks take our subnets just before creation, a few times."""

    def __init__(self, times: int, role: Role) -> None:
        super().__init__()
        self.left, self._role = times, role

    def create_network(self, spec: NetworkSpec) -> None:
        if spec.labels[ROLE] == self._role and self.left:
            self.left -= 1
            super().create_network(replace(spec, name=f"another-{self.left}", labels={}))
        super().create_network(spec)


@pytest.mark.parametrize("role", Role)
def test_subnets_are_chosen_again_when_another_network_comes_first(role: Role) -> None:
    """Another network is chosen each time, and the other role keeps its subnet."""
    engine = Contested(3, role)
    seen = stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test"))
    assert (seen.diff.verdict, engine.left) == (Verdict.CURRENT, 0)
    subnets = [subnet for each in engine.networks() for subnet in each.subnets]
    assert len(subnets) == 5
    assert not [one for one in subnets for other in subnets if one is not other and one.overlaps(other)]


def test_choosing_subnets_has_an_end() -> None:
    """If foreign networks always win, the run ends with the engine's error and leaves nothing behind."""
    engine = Contested(1000, Role.AGENTS)
    with pytest.raises(SubnetTakenError):
        stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test"))
    assert engine.left == 980
    assert engine.listing() == ()


def test_a_subnet_of_the_settings_is_never_exchanged() -> None:
    """A configured subnet is never replaced: the run fails, and names the conflicting network."""
    network = {"subnet": "10.99.0.0/20"}
    engine = Contested(1, Role.AGENTS)
    wanted = stacks.blueprint(engine.facts(), "a.test", network=network)
    with pytest.raises(SettingsError, match="overlaps other networks"):
        stacks.converged(engine, wanted)
