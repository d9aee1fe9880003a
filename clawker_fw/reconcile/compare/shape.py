"""diff: the shape of any container of a stack. Pure."""

from collections.abc import Iterator

from clawker_fw.model.containers import ContainerView, Shape
from clawker_fw.model.differences import Action, Finding, Layer, Value
from clawker_fw.model.observed import Observed
from clawker_fw.reconcile.compare.image import Difference
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack import labels


def findings(pair: SiblingPair) -> Iterator[Finding]:
    """Yield the differences of a sibling's shape, except its networks, which belong to its state."""
    for field, running, desired, made in shape_differences(
        pair.observed, pair.container, pair.desired_sibling.shape, unrecorded=pair.by_another_release
    ):
        if field != "networks":
            yield pair.finding(Layer.SHAPE, field, running, desired, made=made, action=Action.REPLACE)


def shape_differences(
    observed: Observed, container: ContainerView, shape: Shape, *, unrecorded: bool
) -> Iterator[Difference]:
    """Yield the differing fields of a shape. `unrecorded` says whether we made values that no record names."""
    applied = labels.read_applied(container.labels)
    running = {**labels.shape_fields(container.shape), "environment": _environment(observed, container, shape)}
    for field, value in labels.shape_fields(shape).items():
        if running[field] == value:
            continue
        recorded = applied.shape.get(field) if applied else None
        made = unrecorded if recorded is None else running[field] == recorded
        yield Difference(field, _value(running[field]), _value(value), made)


def _environment(observed: Observed, container: ContainerView, shape: Shape) -> list[str]:
    view = observed.images.get(container.image)
    inherited = set(view.environment if view else ()) - set(shape.environment)
    return sorted(set(container.shape.environment) - inherited)


def _value(value: str | int | bool | list[str]) -> Value:  # noqa: FBT001 - a value, not a switch
    return tuple(value) if isinstance(value, list) else value
