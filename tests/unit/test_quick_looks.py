"""A command that changes a stack looks quickly first: what Envoy takes long to show is read only if it decides."""

import itertools

import pytest

from clawker_fw.model import Layer, Probe, Sibling, Verdict
from clawker_fw.reconcile import converge, pipeline
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.reconcile.observe import Observation
from clawker_fw.reconcile.steps import ConvergeOptions
from clawker_fw.report.facts import live_rules, live_version
from clawker_fw.stack.container import HELPER_PATH
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.memory.engine import MemoryEngine

ENVOY = "clawker-envoy"


class Counting(MemoryEngine):
    """An engine whose Envoy takes long to show its listeners. It counts when Envoy is asked for all the same."""

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self.whole = 0

    def probe(self, container: str, *, envoy: bool = True, quick: bool = False) -> Probe:
        """Count."""
        inside = self.inside(ENVOY)
        inside.long_to_read = ("listeners",)
        self.whole += container == inside.id and not quick
        return super().probe(container, envoy=envoy, quick=quick)


@pytest.fixture
def engine(release: Release) -> Counting:
    """An engine with a stack that is up."""
    engine = Counting()
    stacks.converged(engine, blueprint(engine, release, "a.test"))
    engine.whole = 0
    return engine


def blueprint(engine: Counting, release: Release, *names: str) -> Blueprint:
    """Return a stack with rules for these names."""
    return stacks.blueprint(engine.facts(), *names, release=release)


def looked(engine: Counting, wanted: Blueprint) -> pipeline.Comparison:
    """Compare after a quick look."""
    return pipeline.compare(engine, wanted, Observation(engine, wanted.project, quick=True))


def test_no_sibling_is_current_before_it_has_shown_everything(engine: Counting, release: Release) -> None:
    """Nothing else differs, so what Envoy has loaded decides."""
    seen = looked(engine, blueprint(engine, release, "a.test"))
    assert seen.diff.verdict is Verdict.CURRENT
    assert engine.whole == 1
    probe = seen.observed.siblings[Sibling.ENVOY].probe
    assert probe
    assert (probe.live["listeners"], probe.unread) == (seen.desired.siblings[Sibling.ENVOY].live["listeners"], ())


def test_an_envoy_that_serves_something_else_is_found(engine: Counting, release: Release) -> None:
    """Right files prove nothing, however long the proof takes. The change ends with a proof."""
    wanted = blueprint(engine, release, "a.test")
    engine.inside(ENVOY).live["listeners"] = "another"
    seen = looked(engine, wanted)
    assert [(each.layer, each.field) for each in seen.diff.findings] == [(Layer.LIVE, "listeners")]
    context = converge.RunContext(lambda _: None)
    after = converge.converge(engine, lambda: wanted, ConvergeOptions(0), context, seen)
    assert after.diff.verdict is Verdict.CURRENT
    assert engine.whole == 2


def test_what_is_about_to_change_need_not_be_shown(engine: Counting, release: Release) -> None:
    """Another rule gives Envoy other files: it is asked once, when it has loaded them. Until then nobody knows."""
    wanted = blueprint(engine, release, "a.test", "b.test")
    seen = looked(engine, wanted)
    assert engine.whole == 0
    assert {each.layer for each in seen.diff.findings if each.sibling is Sibling.ENVOY} == {Layer.HOT}
    assert live_version(seen.observed, Sibling.ENVOY) is None
    assert live_rules(seen.observed) is None
    context = converge.RunContext(lambda _: None)
    after = converge.converge(engine, lambda: wanted, ConvergeOptions(0), context, seen)
    assert after.diff.verdict is Verdict.CURRENT
    assert engine.whole == 1


def test_a_silent_envoy_is_not_taken_for_a_quick_one(engine: Counting, release: Release) -> None:
    """Without an answer, nothing is known to have been left out."""
    engine.inside(ENVOY).silent = "no answer"
    assert looked(engine, blueprint(engine, release, "a.test")).diff.verdict is Verdict.UNKNOWN


def test_other_looks_leave_nothing_out(engine: Counting, release: Release) -> None:
    """`drift` and a watcher ask for everything at once, and the engine tells who was asked for what."""
    with engine.events() as events:
        pipeline.compare(engine, blueprint(engine, release, "a.test", "b.test"))
        assert engine.whole == 1
        begun = (each.words for each in events if each.words)  # the first may end before the second begins
        asked = list(itertools.islice(begun, len(Sibling)))
    assert asked == [f"{HELPER_PATH} probe"] * len(Sibling)
