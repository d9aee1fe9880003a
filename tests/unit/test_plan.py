"""Plans as text: steps, their order, and how they are undone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.model.desired import version_of
from clawker_fw.model.differences import Cause
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.steps import Commit, ConvergeOptions, Plan, describe
from clawker_fw.rules.own_page import PAGE
from clawker_fw.stack import labels
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.files import public
from clawker_fw.stack.name_list import POLICY
from devkit import stacks
from devkit.memory.engine import MemoryEngine

ANNOUNCE = "announce the service address for 1.25 s"
COREDNS_RELIEVED = f"release the service address, then {ANNOUNCE}, then stop and remove coredns"
ENVOY_RELIEVED = (
    "wait 1.25 s for the TTL of the old address, then drain envoy for up to 30 s, then stop and remove envoy"
)
ENVOY_ANEW = [
    "create envoy-next",
    "verify envoy-next",
    "---",
    "commit to coredns",
    "stop and remove envoy",
    "name envoy envoy",
]

Prepare = Callable[[MemoryEngine], None]


def text(steps: Plan) -> list[str]:
    """Return a plan's stages as text, with the point of no return and shortened versions and references."""
    lines = [" | ".join(describe(step) for step in stage) for stage in steps.stages]
    lines.insert(steps.point_of_no_return, "---")
    words = {
        " clawker-": " ",
        "image fw": "image clawker-fw",
        "load changed files into": "commit to",
        "create and start": "create",
        " serves version": "@",
    }
    for long, short in words.items():
        lines = [line.replace(long, short) for line in lines]
    return [line for line in lines if line]


def planned(memory: MemoryEngine, wanted: Blueprint, **options: Any) -> list[str]:  # noqa: ANN401 - of a convergence
    """Return the plan of `run` as text without versions."""
    seen = pipeline.compare(memory, wanted)
    versions = {version_of(each.live) for each in seen.desired.siblings.values()}
    lines = text(seen.plan(ConvergeOptions(**options)))
    for version in versions:
        lines = [line.replace(f" {version}", "") for line in lines]
    return [line.partition("@")[0] if "|" not in line and "@" in line else line for line in lines]


@pytest.mark.usefixtures("up")
def test_the_old_siblings_are_kept_until_others_are_proven_on_other_networks(memory: MemoryEngine) -> None:
    """Networks have fixed names, so the old containers stop before new networks are created."""
    moved = stacks.blueprint(memory.facts(), "a.test", network={"subnet": "10.9.0.0/24"})
    lines = planned(memory, moved)
    assert [line for line in lines if not line.startswith("verify")] == [
        "stop envoy | stop coredns",
        "remove network net | remove network egress",
        "create network net (10.9.0.0/24) | create network egress (10.214.0.0/24)",
        "create envoy-next | create coredns-next",
        "---",
        "take the service address",
        "stop and remove coredns | stop and remove envoy",
        "name envoy envoy | name coredns coredns",
    ]


def test_both_are_replaced_side_by_side(memory: MemoryEngine, up: Blueprint) -> None:
    """The old resolver learns the new Envoy's address, so that its TTL expires during the takeover."""
    lines = planned(memory, up, replace_all=True)
    assert lines[0] == "create envoy-next | create coredns-next"
    assert lines[1].startswith("verify envoy-next")
    assert lines[2:] == [
        "---",
        "commit to coredns",
        "take the service address",
        f"{COREDNS_RELIEVED} | {ENVOY_RELIEVED}",
        "name envoy envoy | name coredns coredns",
    ]


def unlabel(container: str) -> Prepare:
    """Return a change after which a container differs but still serves."""

    def prepare(memory: MemoryEngine) -> None:
        inside = memory.inside(container)
        kept = {key: text for key, text in inside.spec.labels.items() if key != labels.STACK_BUILD_SHA}
        inside.spec = replace(inside.spec, labels=kept)

    return prepare


def both(first: Prepare, second: Prepare) -> Prepare:
    return lambda memory: (first(memory), second(memory))[1]  # type: ignore[func-returns-value]


unlabel_envoy, unlabel_coredns = unlabel("clawker-envoy"), unlabel("clawker-coredns")


def strand_envoy(memory: MemoryEngine) -> None:
    memory.disconnect("clawker-egress", "clawker-envoy")


SITUATIONS: dict[str, tuple[Prepare, list[str]]] = {
    "envoy alone, by name": (
        unlabel_envoy,
        [
            "create envoy-next",
            "verify envoy-next",
            "---",
            "commit to coredns",
            ENVOY_RELIEVED,
            "name envoy envoy",
        ],
    ),
    "an envoy that leads nowhere": (
        both(unlabel_envoy, strand_envoy),
        ENVOY_ANEW,
    ),
    "coredns alone, by address": (
        unlabel_coredns,
        [
            "create coredns-next",
            "verify coredns-next",
            "---",
            "take the service address",
            COREDNS_RELIEVED,
            "name coredns coredns",
        ],
    ),
    "coredns that does not answer": (
        lambda m: setattr(m.inside("clawker-coredns"), "silent", "timeout"),
        [
            "create coredns-next",
            "verify coredns-next",
            "---",
            ANNOUNCE,
            f"stop and remove coredns, then {ANNOUNCE}",
            "name coredns coredns",
        ],
    ),
    "a stopped sibling": (lambda m: m.stop("clawker-envoy"), ["start envoy", "---"]),
    "an envoy that was taken off a network": (strand_envoy, ["put envoy back on egress", "---"]),
    "a stopped envoy whose files were changed": (
        both(
            lambda m: m.stop("clawker-envoy"),
            lambda m: m.put_files("clawker-envoy", {LISTENERS: public(b"{}")}),
        ),
        ENVOY_ANEW,
    ),
    "a coredns that was taken off its network": (
        lambda m: m.disconnect("clawker-net", "clawker-coredns"),
        ["put coredns back on net", "---"],
    ),
    "a missing coredns": (
        lambda m: m.remove("clawker-coredns"),
        ["create coredns", "verify coredns", "---", ANNOUNCE],
    ),
    "a stopped envoy that must be replaced": (
        both(unlabel_envoy, lambda m: m.stop("clawker-envoy")),
        ENVOY_ANEW,
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_situation_has_its_plan(name: str, memory: MemoryEngine, up: Blueprint) -> None:
    """The plan is the cheapest one that removes all differences and keeps agents connected."""
    prepare, expected = SITUATIONS[name]
    prepare(memory)
    assert planned(memory, up) == expected


def test_what_is_committed(memory: MemoryEngine, up: Blueprint) -> None:
    """Envoy gets new rules before names resolve. A process that has not loaded earlier files may be replaced."""
    changed = stacks.blueprint(memory.facts(), "b.test")
    assert planned(memory, changed) == ["---", "commit to envoy, then commit to coredns"]
    kept = memory.inside("clawker-coredns").files[POLICY]
    memory.inside("clawker-coredns").files[POLICY] = public(b"")
    assert planned(memory, up) == ["---", "commit to coredns"]
    memory.inside("clawker-coredns").files[POLICY] = kept
    memory.inside("clawker-envoy").live["listeners"] = "older"
    assert planned(memory, up)[1] == "commit to envoy"
    assert planned(memory, up, replace_uncommitted=True)[0] == "create envoy-next"


TAMPER = frozenset({Cause.TAMPER})


@pytest.mark.usefixtures("up")
def test_what_is_made_for_tampering_is_made_as_it_should_be_now(memory: MemoryEngine) -> None:
    """A replacement after tampering gets the current rules, and CoreDNS gets them after Envoy."""
    changed = stacks.blueprint(memory.facts(), "b.test")
    unlabel_envoy(memory)
    steps = pipeline.compare(memory, changed).plan(ConvergeOptions(causes=TAMPER))
    assert [line.partition("@")[0] for line in text(steps)][:4] == [
        "create envoy-next",
        "verify envoy-next",
        "---",
        "commit to coredns",
    ]
    (commit,) = (step for step in steps.steps if isinstance(step, Commit))
    policy = json.loads(commit.files[f"stage/{POLICY}"].content)
    assert (policy["addresses"], policy["names"]) == (
        {"envoy": "10.213.1.11"},
        {"b.test": {"at": "envoy"}, PAGE: {"at": "envoy"}},
    )


def test_the_old_envoy_serves_until_nobody_sends_agents_to_it(memory: MemoryEngine, up: Blueprint) -> None:
    """A resolver that can't be given the new Envoy's address is removed before the old Envoy drains."""
    resolver = memory.inside("clawker-coredns")
    resolver.files["boot/sibling.json"] = public(b"{}")  # of a release with other resources
    applied = json.loads(resolver.spec.labels[labels.APPLIED])
    applied["boot"]["boot/sibling.json"] = labels.digest(b"{}")
    resolver.spec = replace(resolver.spec, labels={**resolver.spec.labels, labels.APPLIED: json.dumps(applied)})
    lines = planned(memory, up, replace_all=True)
    assert lines[lines.index("---") + 1 :] == [
        ANNOUNCE,
        COREDNS_RELIEVED,
        ENVOY_RELIEVED,
        "name envoy envoy | name coredns coredns",
    ]


def test_the_kernel_is_asked_once_for_all_stacks_of_a_release(memory: MemoryEngine, tmp_path: Path) -> None:
    """A running Envoy of another stack shows that the kernel has what one needs, if it is of this release."""
    question = "check that the Docker host's kernel has what the firewall needs"
    stacks.converged(memory, stacks.blueprint(memory.facts(), "a.test"))
    beside = stacks.blueprint(memory.facts(), "a.test", project="other")
    assert question not in planned(memory, beside)
    later = stacks.copied_release(tmp_path)
    stacks.change_corefile(later)
    assert question in planned(memory, replace(beside, release=later))
