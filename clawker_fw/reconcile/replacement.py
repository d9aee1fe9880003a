"""The log record of a sibling that is replaced because it differs from its specification.

It is written once the replacement is certain: the new sibling is verified and serves, and the old one is about to
be removed. An attempt that is rolled back before that logs nothing.
"""

import logging

from clawker_fw.model import Desired, Diff, Layer, Observed, Sibling
from clawker_fw.reconcile.steps import InTurn, Plan, Remove, Step
from clawker_fw.stack import labels

LOG = logging.getLogger("clawker_fw")

_SPECIFIED = frozenset({Layer.LABELS, Layer.IMAGE, Layer.SHAPE, Layer.BOOT})
"""The layers of a sibling's specification. The other layers are about its state and behaviour."""


_MOST_NAMED = 3
"""In a line for people."""


def replaced(observed: Observed, steps: Plan, stage: tuple[Step | InTurn, ...]) -> tuple[Sibling, ...]:
    """Return the siblings whose old containers a stage removes after new ones have taken over."""
    taken = {
        step.container
        for each in stage
        for step in (each.steps if isinstance(each, InTurn) else (each,))
        if isinstance(step, Remove)
    }
    return tuple(
        sibling
        for sibling in steps.replaced
        if (seen := observed.siblings.get(sibling)) and seen.container.id in taken
    )


def record(sibling: Sibling, observed: Observed, desired: Desired, found: Diff) -> None:
    """Log the replacement of a sibling, if drift from its specification is the reason."""
    reason = [f"{each.layer} {each.field}" for each in found.of(sibling) if each.layer in _SPECIFIED]
    if not reason:
        return
    container = observed.siblings[sibling].container
    fields: dict[str, object] = {"container": container.name, "reason": ", ".join(reason)}
    for label in labels.DRIFT_LABELS:
        name = label.rpartition(".")[2]
        fields[f"desired_{name}"] = desired.siblings[sibling].labels[label]
        fields[f"running_{name}"] = container.labels.get(label)
    more = f" and {len(reason) - _MOST_NAMED} more" if len(reason) > _MOST_NAMED else ""
    line = f"{container.name} has been replaced: {', '.join(reason[:_MOST_NAMED])}{more} differed"
    LOG.warning("firewall_container_spec_drift", extra={"fields": fields, "line": line})
