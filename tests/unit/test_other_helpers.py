"""Stacks whose helpers are of another release: a run replaces incompatible ones."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.plan import staged
from clawker_fw.reconcile.steps import ConvergeOptions, describe
from clawker_fw.stack import labels
from clawker_fw.stack.files import public
from devkit import stacks
from devkit.memory.container import VERBS, MemoryContainer
from devkit.memory.engine import MemoryEngine

NAMES = ("clawker-coredns", "clawker-envoy")
RESIDENT = "drain clawker-envoy", "release the service address", "load changed files into coredns"
"""What a helper of the replaced containers does."""


def lacking(*verbs: str) -> Callable[[MemoryContainer], None]:
    """Return a change after which a helper lacks these verbs and has an unknown one."""

    def change(inside: MemoryContainer) -> None:
        inside.verbs = VERBS - {*verbs} | {"later"}

    return change


def other_protocol(inside: MemoryContainer) -> None:
    """Have a helper speak a later protocol."""
    inside.protocol += 1


OTHERS = {
    "more verbs": (lacking(), True),
    **{f"without {verb}": (lacking(verb), False) for verb in ("claim", "commit-in-place", "release", "secrets")},
    **{f"without {verb}": (lacking(verb), True) for verb in ("drain", "usage", "inherit-usage", "suppressed")},
    "fewer of all": (lacking(*VERBS - {"probe"}), False),
    "another protocol": (other_protocol, False),
}
"""How the helpers differ, and whether this release can talk to them."""


@pytest.mark.parametrize("names", [NAMES, NAMES[:1], NAMES[1:]], ids=["both", "coredns", "envoy"])
@pytest.mark.parametrize(("change", "talks"), OTHERS.values(), ids=OTHERS)
def test_a_run_replaces_what_it_cant_talk_to(
    change: Callable[[MemoryContainer], None],
    talks: bool,  # noqa: FBT001 - of the table
    names: tuple[str, ...],
    memory: MemoryEngine,
    up: Blueprint,
) -> None:
    """One run suffices and leaves nothing behind. Only compatible helpers take part."""
    before = {memory.inside(name).id for name in names}
    for name in names:
        inside = memory.inside(name)
        change(inside)
        made = {**inside.spec.labels, labels.STACK_BUILD_SHA: "0" * 64}
        inside.spec = replace(inside.spec, labels=made)
    seen = pipeline.compare(memory, up)
    lines = [describe(step) for step in seen.plan(ConvergeOptions()).steps]
    if names == NAMES:
        assert all(any(each in line for line in lines) for each in RESIDENT) is talks, lines
    after = stacks.converged(memory, up)
    assert after.diff.findings == ()
    assert after.observed.leftovers == ()
    assert before.isdisjoint(listed.id for listed in memory.listing())
    assert stacks.serving(memory)


def test_a_commit_that_another_release_has_staged_is_no_tampering(memory: MemoryEngine, up: Blueprint) -> None:
    """Files that an interrupted run staged are removed by the next; other files there are tampering."""
    resolver = pipeline.compare(memory, up).desired.siblings[Sibling.COREDNS]
    memory.put_files("clawker-coredns", staged(resolver))
    assert stacks.found(memory, up) == {("coredns", "boot", "leftover.stage/", "upgrade", "replace")}
    memory.put_files("clawker-coredns", {"stage/hot/further.json": public(b"{}")})
    assert {cause for *_, cause, _ in stacks.found(memory, up)} == {"tamper"}
    stacks.converged(memory, up)
    assert stacks.found(memory, up) == set()
