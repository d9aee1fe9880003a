"""A run's findings and steps as log records."""

from clawker_fw.model.differences import Diff
from clawker_fw.reconcile.apply import Progress
from clawker_fw.reconcile.steps import describe
from clawker_fw.reconcile.summary import Summary
from clawker_fw.report import summary
from clawker_fw.report.log import LOG

_OF_FINDINGS = ("sibling", "layer", "field", "running", "desired", "cause", "action")


class StepRecords:
    """Writes one record for each finding, and one for each completed step."""

    def difference(self, diff: Diff, run_summary: Summary) -> None:
        """Write records for the whole change, for changed rules, and for each finding."""
        LOG.info("summary", extra={"fields": {"lines": summary.lines(run_summary)}})
        if changes := run_summary.changes:
            rules = {"added": list(changes.added), "removed": list(changes.removed)}
            LOG.info("rules", extra={"fields": rules})
        for finding in diff.findings:
            LOG.info("finding", extra={"fields": {name: getattr(finding, name) for name in _OF_FINDINGS}})

    def __call__(self, progress: Progress) -> None:
        if progress.share >= 1:
            fields = {"step": describe(progress.step), "seconds": round(progress.seconds, 3)}
            LOG.info("step", extra={"fields": fields | ({"note": progress.note} if progress.note else {})})
