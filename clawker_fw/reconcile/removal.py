"""Plans that only remove: a whole stack, or our unused images. Pure."""

from collections.abc import Collection

from clawker_fw.agents import trust
from clawker_fw.errors import RefusedError
from clawker_fw.model import Desired, Observed, OwnImage, Sibling
from clawker_fw.reconcile.steps import Detach, Plan, Remove, RemoveNetwork, RemoveVolume, Step
from clawker_fw.stack import labels
from clawker_fw.stack.envoy import signing
from clawker_fw.stack.labels import is_filler


def teardown(observed: Observed, project: str, *, detach: bool) -> Plan:
    """Return the plan that removes a project's stack. With `detach`, agents still attached are disconnected first.

    Raises:
        RefusedError: when agents are attached and `detach` is false.
    """
    attached = [
        Detach(observed.networks[role].id, observed.networks[role].name, name)
        for role, places in observed.attached.items()
        for name in places
    ]
    if attached and not detach:
        raise RefusedError(
            "network-in-use",
            "Containers are still attached to this stack.",
            context=[f"{each.container} on {each.name}" for each in attached],
            hint="Stop them, or disconnect them with `clawker-fw down --force`.",
        )
    networks = [*observed.networks.values(), *((observed.publishing,) if observed.publishing else ())]
    fillers = [each for each in observed.listing if is_filler(each, project)]
    volumes = (*observed.orphans, *(each.name for each in observed.spare_trust), *(each.name for each in fillers))
    stages: tuple[tuple[Step, ...], ...] = (
        tuple(attached),
        (
            *(Remove(each.container.id, each.container.name) for each in observed.siblings.values()),
            *(Remove(each.container.id, each.container.name) for each in observed.leftovers),
            *trial_removed(observed),
            *(Remove(each.id, each.name) for each in fillers),
            *(Remove(each.container.id, each.container.name) for each in observed.relays),
        ),
        tuple(RemoveNetwork(network.id, network.name) for network in networks),
        tuple(RemoveVolume(volume) for volume in volumes),
    )
    return Plan(tuple(stage for stage in stages if stage))


def trial_removed(observed: Observed) -> tuple[Remove, ...]:
    """Return the step that removes the container of `conformance`, if there is one."""
    return (Remove(observed.trial.id, observed.trial.name),) if observed.trial else ()


def unused_images(observed: Observed, desired: Desired, retired: Collection[str]) -> tuple[OwnImage, ...]:
    """Return our images of other releases that are unused once the `retired` containers are removed."""
    kept = {*desired.images, *(id_ for each in desired.siblings.values() for id_ in each.image.ids)}
    return tuple(
        image
        for image, users in observed.own_images.items()
        if set(users) <= set(retired) and kept.isdisjoint((image.id, *image.references))
    )


def old_trust(observed: Observed, desired: Desired) -> tuple[str, ...]:
    """Return the volumes that no container uses, with other roots than agents have to trust from now on.

    Those with the current ones are left: somebody may be about to start an agent with one.
    """
    roots = desired.siblings[Sibling.ENVOY].hot.get(signing.TRUST)
    wanted = trust.label(roots.content) if roots and roots.content and observed.spare_trust else ""
    return tuple(each.name for each in observed.spare_trust if each.labels[labels.TRUST] != wanted)


def unused_references(observed: Observed) -> tuple[str, ...]:
    """Return the references of our images, of any release, that no container uses."""
    unused = (image for image, users in observed.own_images.items() if not users)
    held = observed.lock.image if observed.lock else ""
    return tuple(sorted(name for image in unused if image.id != held for name in image.references or (image.id,)))
