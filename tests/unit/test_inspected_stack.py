"""A stack with inspected TLS: what is created, applied, compared and warned of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.certificates.store import InspectionStore
from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.model.probes import Probe
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.report.summary import lines
from clawker_fw.stack.envoy.signing import INTERMEDIATES, TRUST
from devkit import stacks
from devkit.memory.engine import MemoryEngine

NOW = 1_800_000_000.0
DAY = 86400.0
INSPECTED = (
    {"dst": "api.test", "path_rules": [{"path": "/v1"}]},
    {"dst": ".w.test", "inspect": True},
)

Wanted = Callable[..., Blueprint]


@pytest.fixture
def wanted(memory: MemoryEngine, tmp_path: Path) -> Wanted:
    """Return a stack's blueprint with these rules at this time, on a machine with a folder for roots."""

    def made(*rules: object, now: float = NOW, folder: str = "here") -> Blueprint:
        provider = InspectionStore(tmp_path / folder, "clawker", keeps=True, clock=lambda: now)
        return replace(stacks.blueprint(memory.facts(), "a.test", *rules), provider=provider)  # type: ignore[arg-type]

    return made


def files(memory: MemoryEngine) -> dict[str, bytes]:
    seen = pipeline.compare(memory, stacks.blueprint(memory.facts(), "a.test")).observed
    return {path: file.content for path, file in seen.siblings[Sibling.ENVOY].files.items()}


def test_what_is_due_is_a_difference_and_then_is_not(memory: MemoryEngine, wanted: Wanted) -> None:
    """Renewal is due after two thirds of thirty days; before that, nothing differs and its time is known."""
    stacks.converged(memory, wanted(*INSPECTED))
    seen = pipeline.compare(memory, wanted(*INSPECTED, now=NOW + 19 * DAY))
    assert seen.diff.findings == ()
    assert seen.provided.renewed_at is not None
    assert NOW + 19 * DAY < seen.provided.renewed_at < NOW + 21 * DAY
    due = wanted(*INSPECTED, now=NOW + 21 * DAY)
    found = {(layer, field, action) for _, layer, field, _, action in stacks.found(memory, due)}
    assert found == {("hot", INTERMEDIATES, "commit"), ("live", "intermediates", "commit")}
    trust = files(memory)[TRUST]
    assert stacks.converged(memory, due).diff.findings == ()
    assert files(memory)[TRUST] == trust
    late = pipeline.compare(memory, wanted(*INSPECTED, now=NOW + 8 * 365 * DAY))
    assert [each.code for each in late.advice] == ["inspection-root"]  # only the user rotates it


def test_the_end_of_a_rule_changes_nothing_of_what_signs(memory: MemoryEngine, wanted: Wanted) -> None:
    """After a rule's expiry, the running signer files equal the desired ones."""
    ending = {**INSPECTED[0], "until": "2100-01-01T00:00:00Z"}
    for rules in ((ending,), (ending, INSPECTED[1])):
        before = stacks.converged(memory, wanted(*rules))
        after = pipeline.compare(memory, before.blueprint.at(before.blueprint.rules.deadlines[0]))
        (live,) = before.desired.siblings[Sibling.ENVOY].later
        assert live == after.desired.siblings[Sibling.ENVOY].live
        for path in (TRUST, INTERMEDIATES):
            assert (
                after.desired.siblings[Sibling.ENVOY].hot[path] == before.desired.siblings[Sibling.ENVOY].hot[path]
            )


def test_agents_that_lack_the_root(memory: MemoryEngine, wanted: Wanted) -> None:
    """Turning inspection on breaks agents without the root, so the warning comes before and stays after."""
    stacks.converged(memory, wanted())
    for name in ("web", "db"):
        shape = Shape(("x",), (), {"clawker-net": ""})
        memory.start(memory.create_container(ContainerSpec(name, memory.inside("clawker-envoy").image, {}, shape)))
    assert pipeline.compare(memory, wanted()).advice == ()
    for _ in range(2):
        (told,) = pipeline.compare(memory, wanted(*INSPECTED)).advice
        assert told.code == "agents-without-root"
        assert told.message.startswith("db, web do not trust the inspection root: recreate them with ")
        stacks.converged(memory, wanted(*INSPECTED))
    assert pipeline.compare(memory, wanted()).advice == ()


class Silent(MemoryEngine):
    """An engine with a stack whose signer does not answer."""

    silent = False

    def probe(self, container: str, *, envoy: bool = True) -> Probe:
        found = super().probe(container, envoy=envoy)
        if not self.silent or "names" not in found.live:
            return found
        live = {name: digest for name, digest in found.live.items() if name not in {"names", "intermediates"}}
        return replace(found, live=live, signer="i/o timeout")


def test_a_silent_signer_is_one_finding() -> None:
    """A silent signer's files are unknown, and only a new container brings a new signer."""
    engine = Silent()
    wanted = stacks.blueprint(engine.facts(), "a.test")
    stacks.converged(engine, wanted)
    engine.silent = True
    assert stacks.found(engine, wanted) == {("envoy", "live", "signer", "tamper", "replace")}
    said = " ".join(lines(pipeline.summary_of(pipeline.compare(engine, wanted))))
    assert "the signer beside Envoy does not answer" in said
