"""diff: the image of any container of a stack. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from clawker_fw.model.containers import ContainerView
from clawker_fw.model.differences import Action, Cause, Finding, Layer, Value
from clawker_fw.model.images import Image
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack import labels, versions
from clawker_fw.stack.image_tar import version_in


class Difference(NamedTuple):
    """A field with its running and its desired value, and whether we made the running one."""

    field: str
    running: Value
    desired: Value
    made: bool


def findings(pair: SiblingPair) -> Iterator[Finding]:
    """Compare the image's id with the desired one, and check that the engine has the desired reference.

    A reference that was removed or moved while a container runs is loaded or pulled again. Only then can a
    reference by digest be compared by id.
    """
    image = pair.desired_sibling.image
    if other := image_difference(pair.observed, pair.container, image):
        both_bundled = image.bundled and pair.applied is not None and bool(pair.applied.image_ids)
        yield pair.finding(
            Layer.IMAGE,
            other.field,
            other.running,
            other.desired,
            made=other.made,
            action=Action.REPLACE,
            cause=Cause.UPGRADE if both_bundled else Cause.SETTINGS,
            versions=_versions(pair),
        )
        return
    ids, view = _ids(pair.observed, image), pair.observed.images.get(image.reference)
    if view is None or (ids and view.id not in ids):
        action = Action.LOAD if image.bundled else Action.PULL
        desired = ids[0] if ids else image.reference
        running = view.id if view else None
        yield pair.finding(Layer.IMAGE, "reference", running, desired, made=False, action=action)


def image_difference(observed: Observed, container: ContainerView, image: Image) -> Difference | None:
    """Return a container's image difference. Before a reference is pulled, the name decides."""
    applied, ids = labels.read_applied(container.labels), _ids(observed, image)
    made_from_it = applied is not None and applied.image == image.reference
    if container.image in ids or (not ids and made_from_it):
        return None
    made = applied is not None and (
        container.image in applied.image_ids if applied.image_ids else not made_from_it
    )
    return Difference("id", container.image, ids[0] if ids else image.reference, made)


def _ids(observed: Observed, image: Image) -> tuple[str, ...]:
    """Return the possible ids of a desired image, none before its reference is pulled."""
    view = observed.images.get(image.reference)
    return image.ids or ((view.id,) if view else ())


def _versions(pair: SiblingPair) -> tuple[str | None, str | None]:
    """Return the running and the desired version. Our CoreDNS's is its release, as its plugins may differ."""
    image, applied, probe = pair.desired_sibling.image, pair.applied, pair.probe
    ours = applied is not None and pair.container.image in applied.image_ids
    reported = versions.of_build(probe.build) if probe else None
    name = applied.image if applied and (ours or not applied.image_ids) else ""
    recorded = version_in(name) or versions.of_reference(name)
    if image.sibling is Sibling.COREDNS and image.bundled:
        return (recorded, image.version) if ours else (reported, None)
    return reported or recorded, image.version
