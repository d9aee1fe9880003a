"""The record of a sibling that is replaced because it is not made as it should be.

It is written when the replacement is certain: the new sibling has proven itself and has taken over, and the old
one is being taken away. An attempt that is rolled back before leaves none.
"""

import logging

from clawker_fw.model import Desired, Diff, Layer, Observed, Sibling
from clawker_fw.reconcile.steps import InTurn, Plan, Remove, Step
from clawker_fw.stack import labels

LOG = logging.getLogger("clawker_fw")

_SPECIFIED = frozenset({Layer.LABELS, Layer.IMAGE, Layer.SHAPE, Layer.BOOT})
"""The layers in which a sibling differs from its specification; in the others it does not do what it should."""


def replaced(observed: Observed, steps: Plan, stage: tuple[Step | InTurn, ...]) -> tuple[Sibling, ...]:
    """Return the siblings whose containers of now a stage takes away, because new ones serve in their place."""
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
    """Write the record, if it is for drift of its specification that the sibling is replaced."""
    reason = [f"{each.layer} {each.field}" for each in found.of(sibling) if each.layer in _SPECIFIED]
    if not reason:
        return
    container = observed.siblings[sibling].container
    fields: dict[str, object] = {"container": container.name, "reason": ", ".join(reason)}
    for label in labels.DRIFT_LABELS:
        name = label.rpartition(".")[2]
        fields[f"desired_{name}"] = desired.siblings[sibling].labels[label]
        fields[f"running_{name}"] = container.labels.get(label)
    LOG.warning("firewall_container_spec_drift", extra={"fields": fields})
