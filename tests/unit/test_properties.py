"""Properties of the whole core for generated settings and rules."""

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawker_fw.model.differences import Verdict
from clawker_fw.model.stacks import Slots
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.steps import ConvergeOptions, Create, Detach, Drain, Remove, Rename
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack import labels
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.strategies import rule_sets

CHOSEN = st.fixed_dictionaries(
    {"otel": st.fixed_dictionaries({"infra_port": st.integers(1, 65535)})},
    optional={
        "drain_timeout": st.integers(0, 60),
        "limits": st.fixed_dictionaries({}, optional={"connections": st.integers(1, 100_000)}),
        "images": st.fixed_dictionaries({}, optional={"envoy": st.just("example/envoy@sha256:" + "a" * 64)}),
    },
)
thorough = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def wanted(engine: MemoryEngine, chosen: dict[str, Any], rules: RuleSet) -> Blueprint:
    plain = stacks.blueprint(engine.facts(), **chosen)
    return replace(plain, rules=rules)


@thorough
@given(CHOSEN, rule_sets(), CHOSEN, rule_sets())
def test_after_run_drift_is_empty(
    first: dict[str, Any], rules: RuleSet, then: dict[str, Any], changed: RuleSet
) -> None:
    """From any state to any settings, one run makes the stack current, and a second one does nothing."""
    engine = MemoryEngine()
    for blueprint in (wanted(engine, first, rules), wanted(engine, then, changed)):
        assert stacks.converged(engine, blueprint).diff.verdict is Verdict.CURRENT
        assert stacks.found(engine, blueprint) == set()
        assert pipeline.compare(engine, blueprint).plan(ConvergeOptions()).empty


@thorough
@given(CHOSEN, rule_sets())
def test_two_renders_are_equal(chosen: dict[str, Any], rules: RuleSet) -> None:
    """Equal inputs give equal bytes: nothing depends on chance, time or the order of a set."""
    engine = MemoryEngine()
    seen = pipeline.compare(engine, wanted(engine, chosen, rules))
    shuffled = RuleSet.of(reversed(rules.rules))
    again = pipeline.compare(engine, wanted(engine, chosen, shuffled))
    for slots in (Slots(0, 0), Slots(1, 1)):
        assert seen.desired_in(slots) == again.desired_in(slots)


@thorough
@given(CHOSEN, rule_sets(), st.booleans())
def test_no_step_names_what_is_not_ours(chosen: dict[str, Any], rules: RuleSet, everything: object) -> None:
    """Only containers with our labels for this project are drained, renamed or removed."""
    engine = MemoryEngine()
    other = stacks.blueprint(engine.facts(), "a.test", project="other")
    stacks.converged(engine, other)
    blueprint = wanted(engine, chosen, rules)
    stacks.converged(engine, stacks.blueprint(engine.facts(), "b.test"))
    steps = pipeline.compare(engine, blueprint).plan(ConvergeOptions(replace_all=bool(everything)))
    for step in (*steps.steps, *steps.rollback):
        match step:
            case Drain() | Remove() | Rename():
                if step.container.startswith("clawker-"):
                    continue  # a container that the plan itself creates
                found = engine.inside(step.container).spec.labels
                assert not labels.lacking(found, "clawker")
            case Create():
                assert not labels.lacking(step.spec.labels, "clawker")
            case Detach():
                raise AssertionError("a run never takes an agent off its network")
    stacks.converged(engine, blueprint)
    assert stacks.found(engine, other) == set()
