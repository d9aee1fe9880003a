"""The JSON answers. Their schemas are published in `docs/schemas/`; a breaking change increments `SCHEMA`."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clawker_fw.agents.attachment import DROPPED_CAPABILITY, NO_SEARCH_DOMAIN, Attachment
from clawker_fw.agents.judge import Agent
from clawker_fw.model import (
    Attempt,
    Desired,
    Diff,
    Finding,
    Observed,
    ObservedSibling,
    Refused,
    Role,
    Rules,
    Sibling,
    Verdict,
    version_of,
)
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.lock import Holder, abandoned
from clawker_fw.reconcile.removal import unused_images
from clawker_fw.reconcile.rule_changes import RuleChanges
from clawker_fw.reconcile.steps import (
    Plan,
    Step,
    describe,
)
from clawker_fw.reconcile.summary import Summary
from clawker_fw.report import summary
from clawker_fw.report.filediff import unified
from clawker_fw.stack import labels, versions
from clawker_fw.stack.capacity import running
from clawker_fw.stack.container import recorded_rules

SCHEMA = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Left:
    """What `down` has kept: our unused images, and the cache if it exists."""

    images: tuple[str, ...]
    cache: Path | None


def drift_document(
    found: Diff,
    said: Summary | None,
    failed: Attempt | None,
    changes: RuleChanges | None,
    *,
    verdict: Verdict,
    agents: Sequence[Agent] | None,
    busy: Holder | None,
    warnings: Sequence[Advice],
) -> dict[str, Any]:
    """Return the answer of `drift`.

    `verdict` is that on the whole stack, and `agents` are null if they are left out. `failed` is the last attempt
    to close the difference, if it failed; `busy` is the run that holds the lock.
    """
    return {
        "schema": SCHEMA,
        "verdict": verdict.value,
        "busy": _busy(busy),
        "warnings": _warnings(warnings),
        "summary": _summary(said),
        "rules": _rules(changes),
        "agents": None if agents is None else agents_document(agents),
        "siblings": _siblings(found),
        "failed_attempt": dataclasses.asdict(failed) | {"context": list(failed.context)} if failed else None,
    }


def agents_document(agents: Iterable[Agent]) -> list[dict[str, Any]]:
    """Return the agents: who each is, how well it is confined, and why not better."""
    return [
        {
            "name": each.name,
            "id": each.id,
            "image": each.image,
            "address": each.address or None,
            "since": each.since or None,
            "state": each.confinement.value,
            "reasons": [
                {"code": one.code, "text": one.phrase, "opens": one in each.openings}
                for one in (*each.openings, *each.weaknesses)
            ],
        }
        for each in agents
    ]


def notices(busy: Holder | None, warnings: Sequence[Advice]) -> dict[str, Any]:
    """Return the fields about who is changing the stack, and about what is no difference."""
    return {"busy": _busy(busy), "warnings": _warnings(warnings)}


def _busy(holder: Holder | None) -> dict[str, Any] | None:
    return dataclasses.asdict(holder) if holder else None


def _warnings(warnings: Sequence[Advice]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(each) for each in warnings]


def _summary(said: Summary | None) -> list[str]:
    """Return what closing the differences means, as lines for people; none for a stack that is current."""
    return summary.lines(said) if said else []


def _rules(changes: RuleChanges | None) -> dict[str, Any] | None:
    return {"added": list(changes.added), "removed": list(changes.removed)} if changes is not None else None


def plan_document(
    before: Diff,
    said: Summary | None,
    steps: Plan,
    warnings: Sequence[Advice],
    *,
    rules: RuleChanges | None,
) -> dict[str, Any]:
    """Return the answer of a dry run: the differences, and the steps that would close them."""
    return _changes(
        before, said, before.verdict, warnings, rules=rules, steps=steps.steps, notes=[], changed=False
    )


def run_document(
    before: Diff,
    said: Summary | None,
    performed: Sequence[Progress],
    after: Diff,
    warnings: Sequence[Advice],
    *,
    rules: RuleChanges | None,
) -> dict[str, Any]:
    """Return the answer of `run` and `reload`: the differences before, the steps, and the verdict afterwards."""
    steps = [done.step for done in performed]
    notes = [{"step": describe(done.step), "note": done.note} for done in performed if done.note]
    return _changes(
        before, said, after.verdict, warnings, rules=rules, steps=steps, notes=notes, changed=bool(performed)
    )


def _changes(
    before: Diff,
    said: Summary | None,
    verdict: Verdict,
    warnings: Sequence[Advice],
    *,
    rules: RuleChanges | None,
    steps: Iterable[Step],
    notes: Sequence[dict[str, str]],
    changed: bool,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "verdict": verdict.value,
        "changed": changed,
        "warnings": _warnings(warnings),
        "summary": _summary(said),
        "rules": _rules(rules),
        "steps": [_step(step) for step in steps],
        "notes": list(notes),
        "siblings": _siblings(before),
    }


def down_document(project: str, performed: Sequence[Progress], left: Left) -> dict[str, Any]:
    """Return the answer of `down`: the steps performed, and what was kept."""
    return {
        "schema": SCHEMA,
        "project": project,
        "steps": [_step(done.step) for done in performed],
        "left": {"images": list(left.images), "cache": str(left.cache) if left.cache else None},
    }


def _step(step: Step) -> dict[str, Any]:
    """Return a step: its kind, its fields, and its one-line description."""
    return {"kind": step.told.kind, **step.told.fields, "text": step.told.sentence}


def attachment_document(attached: Attachment, desired: Desired, found: Diff) -> dict[str, Any]:
    """Return the answer of `agent flags`: the flags, and the same in the engine's terms."""
    return {
        "schema": SCHEMA,
        "verdict": found.verdict.value,
        "project": desired.project,
        "flags": list(attached.flags),
        "network": attached.network,
        "dns": [attached.dns],
        "dns_search": [NO_SEARCH_DOMAIN],
        "cap_drop": [DROPPED_CAPABILITY],
        "environment": dict.fromkeys(attached.emptied, ""),
    }


def left_containers(observed: Observed) -> list[str]:
    """Return the names of the containers that runs, and a `conformance`, have left behind."""
    left = [each.container.name for each in observed.leftovers]
    return [*left, observed.trial.name] if observed.trial and abandoned(observed.trial) else left


def leftovers(observed: Observed, desired: Desired) -> dict[str, list[str]]:
    """Return what earlier runs and releases have left behind and `run` would remove."""
    return {
        "containers": left_containers(observed),
        "images": sorted(
            reference for image in unused_images(observed, desired, frozenset()) for reference in image.references
        ),
        "volumes": list(observed.orphans),
    }


def sibling_status(sibling: Sibling, observed: Observed, network: str, verdict: Verdict) -> dict[str, Any]:
    """Return the state of one sibling. `network` is the name of the agent network."""
    seen = observed.siblings.get(sibling)
    container = seen.container if seen else None
    return {
        "name": sibling.value,
        "verdict": verdict.value,
        "container": container.name if container else None,
        "state": container.status if container else "missing",
        "health": (container.health or None) if container else None,
        "image": container.image if container else None,
        "build": (seen.probe.build or None) if seen and seen.probe else None,
        "version": program_version(seen) if seen else None,
        "address": (container.connected.get(network) or None) if container else None,
        "since": (container.started or None) if container else None,
        "live_version": live_version(observed, sibling),
        "resources": _resources(seen),
        "telemetry": dataclasses.asdict(seen.probe.records) if seen and seen.probe else None,
        "limited": [
            {
                "agent": name,
                "address": each.source,
                "connections": each.connections,
                "queries": each.queries,
                "datagrams": each.datagrams,
            }
            for name, each in limited(observed, sibling)
        ],
    }


def _resources(seen: ObservedSibling | None) -> dict[str, int] | None:
    """Return what a sibling's container may use of the engine's machine."""
    has = running(seen) if seen else None
    return {name: getattr(has, name) for name in ("processors", "memory", "connections")} if has else None


def limited(observed: Observed, sibling: Sibling) -> list[tuple[str | None, Refused]]:
    """Return what a sibling's limits have refused, with the names of the agents that are still attached."""
    seen = observed.siblings.get(sibling)
    names = {each.address: name for name, each in observed.attached.get(Role.AGENTS, {}).items()}
    return [(names.get(each.source), each) for each in (seen.probe.refused if seen and seen.probe else ())]


def program_version(seen: ObservedSibling) -> str | None:
    """Return the version that a sibling's program reports, else that of its image; None if both are unknown."""
    reported = versions.of_build(seen.probe.build) if seen.probe else None
    applied = labels.read_applied(seen.container.labels)
    if reported or applied is None or (seen.sibling is Sibling.COREDNS and applied.image_ids):
        return reported  # the tag of a CoreDNS image that we built is our own version
    made = not applied.image_ids or seen.container.image in applied.image_ids
    return versions.of_reference(applied.image) if made else None


def live_version(observed: Observed, sibling: Sibling) -> str | None:
    """Return a sibling's live version, or None when its process has not reported everything that is live."""
    seen = observed.siblings.get(sibling)
    if seen is None or seen.probe is None or seen.probe.error or seen.probe.unread or not seen.probe.live:
        return None
    return version_of(seen.probe.live)


def attachable(observed: Observed) -> bool:
    """Whether agents can be attached: the agent network and both siblings exist."""
    return Role.AGENTS in observed.networks and all(each in observed.siblings for each in Sibling)


def live_rules(observed: Observed) -> Rules | None:
    """Return the rules that the siblings serve, or None when a sibling is silent or serves no known set.

    The source is the record of Envoy's last commit, if Envoy still serves that: every change of a rule changes
    Envoy's files. Records of earlier releases don't have this.
    """
    if None in {live_version(observed, sibling) for sibling in Sibling}:
        return None
    envoy = observed.siblings[Sibling.ENVOY]
    return recorded_rules(envoy.files, envoy.probe.live if envoy.probe else {})


def _siblings(found: Diff) -> list[dict[str, Any]]:
    return [
        {
            "name": sibling.value,
            "verdict": found.verdicts[sibling].value,
            "findings": [_finding(each) for each in found.of(sibling)],
        }
        for sibling in Sibling
    ]


def _finding(finding: Finding) -> dict[str, Any]:
    document: dict[str, Any] = {
        "layer": finding.layer.value,
        "field": finding.field,
        "running": _value(finding.running),
        "desired": _value(finding.desired),
        "cause": finding.cause.value,
        "action": finding.action.value,
    }
    if finding.versions:
        document["versions"] = dict(zip(("running", "desired"), finding.versions, strict=True))
    if finding.contents:
        document["diff"] = "".join(unified_diff(finding))
    return document


def _value(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def unified_diff(finding: Finding) -> Iterable[str]:
    """Return a unified diff of a finding's files."""
    old = f"running {finding.field}" if finding.running is not None else "/dev/null"
    new = f"desired {finding.field}" if finding.desired is not None else "/dev/null"
    return unified(*(finding.contents or (b"", b"")), old, new)
