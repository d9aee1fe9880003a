"""diff: compare the observed stack with the desired one, layer by layer. Pure.

Each difference has a cause. `tamper`: the running value is not one that we made. `settings`: this release made it,
and the settings or the rules have changed since. `upgrade`: another release made it, or made it of other presets.
What we made, and with which release, is recorded in the container's labels and, for hot files, in the record of
the last commit.
"""

from collections.abc import Iterator

from clawker_fw.model import (
    Action,
    Cause,
    Desired,
    Diff,
    Finding,
    Layer,
    Observed,
    ObservedSibling,
    Sibling,
    Verdict,
)
from clawker_fw.reconcile.compare.container import ContainerComparison
from clawker_fw.reconcile.compare.files import FileComparison
from clawker_fw.reconcile.compare.live import ANSWER, LiveComparison
from clawker_fw.reconcile.compare.networks import intruder_findings, network_findings
from clawker_fw.reconcile.compare.relays import RelayComparison


def diff(observed: Observed, desired: Desired) -> Diff:
    """Return every difference between the observed and the desired stack. Both must be in the same slots."""
    findings: list[Finding] = []
    for sibling in Sibling:
        findings += network_findings(sibling, observed, desired)
        seen = observed.siblings.get(sibling)
        if seen is None:
            findings.append(_absent(sibling, observed))
        else:
            findings += _sibling_findings(observed, desired, seen)
        findings += [_leftover(each) for each in observed.leftovers if each.sibling is sibling]
        findings += intruder_findings(sibling, observed, desired)
    findings += RelayComparison(observed, desired).findings()
    order = {layer: position for position, layer in enumerate(Layer)}
    findings.sort(key=lambda finding: order[finding.layer])
    return Diff(
        tuple(finding for sibling in Sibling for finding in findings if finding.sibling is sibling),
        {sibling: _verdict([each for each in findings if each.sibling is sibling]) for sibling in Sibling},
    )


def _verdict(findings: list[Finding]) -> Verdict:
    """Return the verdict on a sibling. A relay without its agent reaches nobody, so it does not count as drift."""
    findings = [finding for finding in findings if finding.action is not Action.UNPUBLISH]
    if not findings:
        return Verdict.CURRENT
    unread = all(finding.layer is Layer.LIVE and finding.field == ANSWER for finding in findings)
    return Verdict.UNKNOWN if unread else Verdict.DRIFTED


def _leftover(seen: ObservedSibling) -> Finding:
    """Return the finding for a container that an unfinished run has left behind."""
    field = f"leftover.{seen.container.name}"
    return Finding(seen.sibling, Layer.STATE, field, seen.container.status, None, Cause.UPGRADE, Action.REMOVE)


def _absent(sibling: Sibling, observed: Observed) -> Finding:
    cause = Cause.UPGRADE if observed.absent else Cause.TAMPER
    return Finding(sibling, Layer.STATE, "container", "missing", "running", cause, Action.CREATE)


def _sibling_findings(observed: Observed, desired: Desired, seen: ObservedSibling) -> Iterator[Finding]:
    live = LiveComparison(observed, desired, seen)
    found = [
        *ContainerComparison(observed, desired, seen).findings(),
        *FileComparison(observed, desired, seen).findings(),
        *live.findings(),
    ]
    yield from found or live.unexplained()
