"""No verdict from an incomplete observation: changing states, wrong names, unreadable records."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawker_fw.model.containers import ContainerSpec, ContainerSummary, ContainerView, Shape
from clawker_fw.model.differences import Verdict
from clawker_fw.model.probes import Probe
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import converge, observe, pipeline
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.steps import ConvergeOptions
from clawker_fw.stack import labels
from clawker_fw.stack.container import ATTEMPT, COMMITTED
from clawker_fw.stack.files import public
from devkit import stacks
from devkit.memory.engine import MemoryEngine

ENVOY, COREDNS = "clawker-envoy", "clawker-coredns"


class Flapping(MemoryEngine):
    """An engine that lists Envoy as restarting although it runs when inspected."""

    def __init__(self) -> None:
        super().__init__()
        self.lies = 0

    def listing(self) -> tuple[ContainerSummary, ...]:
        found = super().listing()
        if self.lies <= 0:
            return found
        self.lies -= 1
        return tuple(replace(each, status="restarting") if each.name == ENVOY else each for each in found)


@pytest.fixture
def engine() -> Flapping:
    """An engine with a stack that is up."""
    engine = Flapping()
    stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test"))
    return engine


@pytest.fixture
def wanted(engine: Flapping) -> Blueprint:
    return stacks.blueprint(engine.facts(), "a.test")


@pytest.mark.parametrize("lies", [0, 1, 2, 1000])
def test_what_runs_is_asked(lies: int, engine: Flapping, wanted: Blueprint) -> None:
    """A running program that loaded something else, or is unusable for agents, is never `current`."""
    engine.lies = lies
    assert pipeline.compare(engine, wanted).diff.verdict is Verdict.CURRENT
    live = engine.inside(ENVOY).live
    engine.inside(ENVOY).live = dict.fromkeys(live, "other")
    engine.lies = lies
    seen = pipeline.compare(engine, wanted)
    assert seen.observed.siblings[Sibling.ENVOY].probe is not None
    assert seen.diff.verdict is Verdict.DRIFTED
    engine.inside(ENVOY).live = live
    engine.inside(COREDNS).agents_see = {"envoy": ("no answer",)}
    engine.lies = lies
    seen = pipeline.compare(engine, wanted)
    assert [each.field for each in seen.diff.findings] == ["agents_see"]
    assert seen.diff.verdict is Verdict.DRIFTED


class Starting(Flapping):
    """An engine whose Envoy starts to answer after some probes, or never."""

    questions = 0
    ready_after: int | None = None
    starts_for = 1_000_000

    def probe(self, container: str, *, envoy: bool = True) -> Probe:
        found = super().probe(container, envoy=envoy)
        if found.claimed or self.inside(ENVOY).id != container:
            return found
        self.questions += 1
        silent = self.ready_after is None or self.questions <= self.ready_after
        return replace(found, live={}, error="connection refused") if silent else found

    def container(self, container: str) -> ContainerView | None:
        view = super().container(container)
        if view and view.name == ENVOY and self.questions < self.starts_for:
            return replace(view, health="starting")
        return view


@pytest.mark.parametrize(("ready_after", "starts_for", "verdict"), [
    (5, 1_000_000, Verdict.CURRENT),
    (None, 5, Verdict.UNKNOWN),
])  # fmt: skip
def test_who_is_starting_is_waited_for(
    ready_after: int | None, starts_for: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow program is current once it answers, and unknown if it never does."""
    monkeypatch.setattr(observe, "_ANSWER_WITHIN", 0)
    engine = Starting()
    wanted = stacks.blueprint(engine.facts(), "a.test")
    engine.ready_after = 0
    stacks.converged(engine, wanted)
    engine.questions, engine.ready_after, engine.starts_for = 0, ready_after, starts_for
    assert pipeline.compare(engine, wanted).diff.verdict is verdict
    assert engine.questions > 4


class Early(Starting):
    """An engine whose CoreDNS queried Envoy a moment too early."""

    early = 0
    ready_after = 0

    def probe(self, container: str, *, envoy: bool = True) -> Probe:
        found = super().probe(container, envoy=envoy)
        if self.inside(COREDNS).id != container or self.early <= 0:
            return found
        self.early -= 1
        return replace(found, agents_see={"envoy": ("connection refused",)})


@pytest.mark.parametrize(("early", "starts_for", "verdict"), [
    (2, 1_000_000, Verdict.CURRENT),
    (3, 1_000_000, Verdict.DRIFTED),
    (1, 0, Verdict.DRIFTED),
])  # fmt: skip
def test_who_has_asked_too_early_is_asked_again(early: int, starts_for: int, verdict: Verdict) -> None:
    """A failed test by agents counts only if the tested container had started."""
    engine = Early()
    wanted = stacks.blueprint(engine.facts(), "a.test")
    stacks.converged(engine, wanted)
    engine.questions, engine.early, engine.starts_for = 0, early, starts_for
    assert pipeline.compare(engine, wanted).diff.verdict is verdict


def _running(seen: pipeline.Comparison, field: str) -> object:
    return next(each.running for each in seen.diff.findings if each.field == field)


def test_a_crash_loop_is_named(engine: Flapping, wanted: Blueprint) -> None:
    """The finding gives restarts and exit code, even if the program runs at the moment."""
    envoy = engine.inside(ENVOY)
    kept = envoy.files.pop("boot/sibling.json")
    engine.stop(ENVOY)
    for _ in range(2):
        engine.start(ENVOY)
    seen = pipeline.compare(engine, wanted)
    assert (_running(seen, "status"), _running(seen, "restarts")) == ("restarting", "2, exit code 1")
    envoy.files["boot/sibling.json"] = kept
    engine.start(ENVOY)
    envoy.silent = "connection refused"
    seen = pipeline.compare(engine, wanted)
    assert (seen.diff.verdict, _running(seen, "restarts")) == (Verdict.DRIFTED, "2")
    envoy.silent = ""
    assert pipeline.compare(engine, wanted).diff.verdict is Verdict.CURRENT
    envoy.silent = "connection refused"
    assert stacks.converged(engine, wanted).diff.verdict is Verdict.CURRENT


def test_settings_are_read_again_under_the_lock(engine: Flapping, wanted: Blueprint) -> None:
    """Rules removed from the file during a run are not applied."""
    older = stacks.blueprint(engine.facts(), "a.test", "removed.test")
    seen = pipeline.compare(engine, older)
    assert seen.diff.verdict is Verdict.DRIFTED
    after = converge.converge(engine, lambda: wanted, ConvergeOptions(), RunContext(lambda _: None), seen)
    assert after.blueprint == wanted
    assert stacks.found(engine, wanted) == set()
    assert not any(b"removed.test" in file.content for file in engine.inside(COREDNS).files.values())


def _exchange(engine: MemoryEngine) -> None:
    engine.rename(ENVOY, "other")
    engine.rename(COREDNS, ENVOY)
    engine.rename("other", COREDNS)


def _coredns_is_gone(engine: MemoryEngine) -> None:
    engine.remove(COREDNS)
    engine.rename(ENVOY, COREDNS)


def _a_second_envoy_as_coredns(engine: MemoryEngine) -> None:
    engine.rename(COREDNS, "other")
    spec = engine.inside(ENVOY).spec
    networks = {"clawker-net": "10.213.1.11", "clawker-egress": "10.214.0.139"}
    engine.create_container(replace(spec, name=COREDNS, shape=replace(spec.shape, networks=networks)))


NAMES: dict[str, Callable[[MemoryEngine], None]] = {
    "exchanged": _exchange,
    "the other's next": lambda engine: engine.rename(ENVOY, f"{COREDNS}-next"),
    "one is gone, the other has its name": _coredns_is_gone,
    "a leftover of the wrong kind": _a_second_envoy_as_coredns,
}


@pytest.mark.parametrize(
    "options", [ConvergeOptions(), ConvergeOptions(replace_all=True)], ids=["closed", "replaced"]
)
@pytest.mark.parametrize("names", NAMES)
def test_names_are_put_right_by_one_run(
    names: str,
    options: ConvergeOptions,
    engine: Flapping,
    wanted: Blueprint,
) -> None:
    """Containers are identified by label, whatever their names, even when both are replaced."""
    NAMES[names](engine)
    assert pipeline.compare(engine, wanted).diff.verdict is Verdict.DRIFTED
    after = stacks.converged(engine, wanted, options)
    assert after.diff.verdict is Verdict.CURRENT
    assert [each.name for each in engine.listing()] == [COREDNS, ENVOY]
    assert engine.inside(ENVOY).spec.labels[labels.SIBLING] == "envoy"
    assert stacks.serving(engine)


@pytest.mark.parametrize("address", ["10.213.1.10", "10.213.1.20", "10.213.1.53"])
def test_an_answer_on_the_wire_does_nothing_to_anybody(address: str, engine: Flapping, wanted: Blueprint) -> None:
    """Forged ARP answers from a container with raw sockets cause a warning and never change the verdict."""
    spec = ContainerSpec("victim", engine.inside(ENVOY).image, {}, Shape((), (), {"clawker-net": ""}))
    engine.start(engine.create_container(spec))
    (victim,) = (each for each in engine.listing() if each.name == "victim")
    hardware = victim.networks["clawker-net"].hardware
    for named, words in (
        (hardware, "belongs to victim but may be forged"),
        ("02:00:00:00:00:99", "hardware"),
    ):
        engine.inside(COREDNS).others = (f"{address} {named}",)
        seen = pipeline.compare(engine, wanted)
        assert seen.diff.verdict is Verdict.CURRENT
        assert seen.plan(ConvergeOptions()).empty
        (warning,) = seen.advice
        assert warning.code == "address-disputed"
        assert all(text in warning.message for text in (address, named, words))


KNOWN = ("image", "image_ids", "shape", "boot", "networks", "version", "files", "path", "sha256", "at", "context")
KEYS = st.sampled_from(KNOWN)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=5),
    max_leaves=12,
)
RECORDS = st.one_of(
    JSON.map(json.dumps),
    st.text(max_size=20),
    st.just("[" * 100_000),
    st.just("9" * 5_000),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys((*KNOWN, "code", "message"), JSON),
    ).map(json.dumps),
)


@pytest.fixture(scope="module")
def still() -> tuple[MemoryEngine, Blueprint]:
    """A running stack for tests that undo their changes."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test")
    stacks.converged(engine, wanted)
    return engine, wanted


@settings(deadline=None)
@given(RECORDS)
def test_any_text_in_the_label_of_what_was_made(still: tuple[MemoryEngine, Blueprint], text: str) -> None:
    """Any label value is a finding or a readable record, never an error."""
    engine, wanted = still
    envoy = engine.inside(ENVOY)
    kept = envoy.spec
    envoy.spec = replace(kept, labels={**kept.labels, labels.APPLIED: text})
    try:
        if labels.read_applied(envoy.spec.labels) is None:
            assert ("envoy", "labels", labels.APPLIED, "tamper", "replace") in stacks.found(engine, wanted)
        else:
            stacks.found(engine, wanted)
    finally:
        envoy.spec = kept


@settings(deadline=None)
@given(RECORDS, st.sampled_from([COMMITTED, ATTEMPT]))
def test_any_bytes_in_the_records_of_a_volume(still: tuple[MemoryEngine, Blueprint], text: str, path: str) -> None:
    """Arbitrary records of the last applied files and the last attempt never fail a comparison."""
    engine, wanted = still
    files = engine.inside(ENVOY).files
    kept = dict(files)
    files[path] = public(text.encode(errors="surrogatepass"))
    try:
        seen = pipeline.compare(engine, wanted)
        assert seen.failed_attempt is None
    finally:
        files.clear()
        files.update(kept)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (COMMITTED, b""),  # an engine with a full disk leaves empty records, which do not count
        *product([COMMITTED, ATTEMPT], [b"\xff", b"[]", b'{"version": 1, "files": []}', b'{"at": 1}']),
    ],
)
def test_a_record_that_says_nothing_is_a_finding(
    path: str, content: bytes, engine: Flapping, wanted: Blueprint
) -> None:
    """An unreadable record is a finding that `run` removes."""
    engine.inside(ENVOY).files[path] = public(content)
    layer, action = {COMMITTED: ("hot", "commit"), ATTEMPT: ("boot", "replace")}[path]
    assert stacks.found(engine, wanted) == {("envoy", layer, path, "tamper", action)}
    assert stacks.converged(engine, wanted).diff.verdict is Verdict.CURRENT


def test_what_is_ours_and_of_no_kind_is_what_it_is_called(engine: Flapping, wanted: Blueprint) -> None:
    """If the label names no firewall container, the container's name decides."""
    inside = engine.inside(COREDNS)
    inside.spec = replace(inside.spec, labels={**inside.spec.labels, labels.SIBLING: "router"})
    assert stacks.found(engine, wanted) == set()
