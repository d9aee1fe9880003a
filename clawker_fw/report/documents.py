"""The JSON answers. Their schemas are published in `docs/schemas/`; a change that breaks one raises `SCHEMA`."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from clawker_fw.model import Attempt, Desired, Diff, Finding, Observed, Role, Sibling, Verdict, version_of
from clawker_fw.reconcile.plan import waste
from clawker_fw.reconcile.steps import Plan, Step, describe
from clawker_fw.report.filediff import unified

SCHEMA = 1


def drift_document(found: Diff, failed: Attempt | None) -> dict[str, Any]:
    """Return the answer of `drift`; `failed` is the last attempt to close the difference, when it failed."""
    return {
        "schema": SCHEMA,
        "verdict": found.verdict.value,
        "siblings": _siblings(found),
        "warnings": list(found.warnings),
        "failed_attempt": dataclasses.asdict(failed) | {"context": list(failed.context)} if failed else None,
    }


def plan_document(before: Diff, steps: Plan) -> dict[str, Any]:
    """Return the answer of a dry run: what differs, and what would be done about it."""
    planned = [describe(step) for step in steps.steps]
    return _changes(before, before.verdict, planned, changed=False)


def run_document(before: Diff, performed: Sequence[Step], after: Diff) -> dict[str, Any]:
    """Return the answer of `run` and `reload`: what differed, what was done, and the verdict afterwards."""
    return _changes(before, after.verdict, [describe(step) for step in performed], changed=bool(performed))


def _changes(before: Diff, verdict: Verdict, steps: list[str], *, changed: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "verdict": verdict.value,
        "changed": changed,
        "steps": steps,
        "siblings": _siblings(before),
        "warnings": list(before.warnings),
    }


def status_document(observed: Observed, desired: Desired, found: Diff, rules: int) -> dict[str, Any]:
    """Return the answer of `status`."""
    return {
        "schema": SCHEMA,
        "verdict": found.verdict.value,
        "project": desired.project,
        "engine": {"version": observed.engine.version, "architecture": observed.engine.architecture},
        "agent": {
            "network": desired.networks[Role.AGENTS].name,
            "dns": str(desired.service_address),
            "attached": sorted(observed.attached.get(Role.AGENTS, ())),
        },
        "siblings": [_status_of(sibling, observed, desired, found) for sibling in Sibling],
        "warnings": list(found.warnings),
        "rules": rules,
        "leftovers": leftovers(observed, desired),
    }


def leftovers(observed: Observed, desired: Desired) -> dict[str, list[str]]:
    """Return what runs and releases of earlier have left, which `run` takes away."""
    return {
        "containers": [each.container.name for each in observed.leftovers],
        "images": sorted(
            reference
            for image in waste(observed, desired, frozenset())
            for reference in image.references or (image.id,)
        ),
        "volumes": list(observed.orphans),
    }


def _status_of(sibling: Sibling, observed: Observed, desired: Desired, found: Diff) -> dict[str, Any]:
    seen = observed.siblings.get(sibling)
    container = seen.container if seen else None
    agents = desired.networks[Role.AGENTS].name
    return {
        "name": sibling.value,
        "verdict": found.verdicts[sibling].value,
        "container": container.name if container else None,
        "state": container.status if container else "missing",
        "health": (container.health or None) if container else None,
        "image": container.image if container else None,
        "build": (seen.probe.build or None) if seen and seen.probe else None,
        "address": (container.connected.get(agents) or None) if container else None,
        "since": (container.started or None) if container else None,
        "live_version": live_version(observed, sibling),
    }


def live_version(observed: Observed, sibling: Sibling) -> str | None:
    """Return what is live in a sibling, in short; None when that can't be known."""
    seen = observed.siblings.get(sibling)
    if seen is None or seen.probe is None or seen.probe.error or not seen.probe.live:
        return None
    return version_of(seen.probe.live)


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
