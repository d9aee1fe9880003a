"""diff: a sibling's drift labels, and the record in its labels. Pure."""

from collections.abc import Iterator

from clawker_fw.model.differences import Action, Finding, Layer
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack import labels


def findings(pair: SiblingPair) -> Iterator[Finding]:
    """Yield the differences of a sibling's labels."""
    applied = pair.applied
    for label in labels.DRIFT_LABELS:
        running, desired = pair.container.labels.get(label), pair.desired_sibling.labels[label]
        if running != desired:
            is_new = pair.by_another_release and applied is not None and label not in applied.labels
            made = running is not None or is_new
            yield pair.finding(Layer.LABELS, label, running, desired, made=made, action=Action.REPLACE)
    if applied is None:
        yield pair.unreadable(Layer.LABELS, labels.APPLIED, Action.REPLACE)
