"""Leftovers of earlier runs and releases on the engine that nothing uses."""

from collections.abc import Collection

from clawker_fw.agents import trusted_roots
from clawker_fw.model.desired import Desired
from clawker_fw.model.images import OwnImage
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack import labels
from clawker_fw.stack.envoy import signing


def unused_images(observed: Observed, desired: Desired, retired: Collection[str]) -> tuple[OwnImage, ...]:
    """Return our images of other releases that are unused once the `retired` containers are removed."""
    kept = {*desired.images, *(id_ for sibling in desired.siblings.values() for id_ in sibling.image.ids)}
    return tuple(
        image
        for image, users in observed.own_images.items()
        if set(users) <= set(retired) and kept.isdisjoint((image.id, *image.references))
    )


def old_trust(observed: Observed, desired: Desired) -> tuple[str, ...]:
    """Return unused volumes with outdated roots. Volumes with current ones stay for agents about to start."""
    roots = desired.siblings[Sibling.ENVOY].hot.get(signing.TRUST)
    current = trusted_roots.label(roots.content) if roots and roots.content and observed.spare_trust else ""
    return tuple(volume.name for volume in observed.spare_trust if volume.labels[labels.TRUST] != current)


def unused_references(observed: Observed) -> tuple[str, ...]:
    """Return the references of our unused images, of any release."""
    unused = (image for image, users in observed.own_images.items() if not users)
    held = observed.lock.image if observed.lock else ""
    return tuple(sorted(name for image in unused if image.id != held for name in image.references or (image.id,)))
