"""diff: compare any container of ours with its specification: its image and its shape. Pure.

What a difference means, its layer, cause and action, is up to the comparison of a sibling or of a relay.
"""

from collections.abc import Iterator
from typing import NamedTuple

from clawker_fw.model import ContainerView, Image, Observed, Shape, Value
from clawker_fw.stack import labels


class Difference(NamedTuple):
    """A field with its running and its desired value, and whether we made the running one."""

    field: str
    running: Value
    desired: Value
    made: bool


def known_ids(observed: Observed, image: Image) -> tuple[str, ...]:
    """Return the ids that a desired image can have. There are none for a reference that was not pulled yet."""
    view = observed.images.get(image.reference)
    return image.ids or ((view.id,) if view else ())


def image_difference(observed: Observed, container: ContainerView, image: Image) -> Difference | None:
    """Return the difference of a container's image. For a reference that was not pulled yet, the name decides."""
    applied, known = labels.read_applied(container.labels), known_ids(observed, image)
    made_from_it = applied is not None and applied.image == image.reference
    if container.image in known or (not known and made_from_it):
        return None
    made = applied is not None and (
        container.image in applied.image_ids if applied.image_ids else not made_from_it
    )
    return Difference("id", container.image, known[0] if known else image.reference, made)


def shape_differences(
    observed: Observed, container: ContainerView, shape: Shape, *, unrecorded: bool
) -> Iterator[Difference]:
    """Yield the fields of a container's shape that differ.

    `unrecorded` is whether we made a value that the container's record does not name.
    """
    applied = labels.read_applied(container.labels)
    running = {**labels.shape_fields(container.shape), "environment": _environment(observed, container, shape)}
    for field, value in labels.shape_fields(shape).items():
        if running[field] == value:
            continue
        recorded = applied.shape.get(field) if applied else None
        made = unrecorded if recorded is None else running[field] == recorded
        as_recorded = field != "environment" and labels.agrees(container.shape, field, recorded)
        yield Difference(field, _value(running[field]), _value(value), made or as_recorded)


def _environment(observed: Observed, container: ContainerView, shape: Shape) -> list[str]:
    """Return a container's variables, without those of its image."""
    view = observed.images.get(container.image)
    inherited = set(view.environment if view else ()) - set(shape.environment)
    return sorted(set(container.shape.environment) - inherited)


def _value(value: str | int | bool | list[str]) -> Value:  # noqa: FBT001 - a value, not a switch
    return tuple(value) if isinstance(value, list) else value
