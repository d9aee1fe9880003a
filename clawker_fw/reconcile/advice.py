"""What somebody should know of a stack although it is no difference: nothing is done about it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from clawker_fw.model import Desired, Observed, Sibling
from clawker_fw.stack import labels, versions


@dataclass(frozen=True, slots=True)
class Advice:
    """One warning: a code that stays, and a sentence."""

    code: str
    message: str


def advice(observed: Observed, desired: Desired) -> tuple[Advice, ...]:
    """Return all warnings."""
    outdated = _outdated_envoy(observed, desired)
    return (*((outdated,) if outdated else ()), *_disputed_addresses(observed, desired))


def _outdated_envoy(observed: Observed, desired: Desired) -> Advice | None:
    """Warn of an image of one's own choice with an Envoy older than the one that this release is made for.

    One that is about to be replaced by another image anyway is a finding.
    """
    wanted, seen = desired.siblings[Sibling.ENVOY].image, observed.siblings.get(Sibling.ENVOY)
    if wanted.oldest is None or seen is None or seen.probe is None:
        return None
    applied = labels.read_applied(seen.container.labels)
    running = versions.of_build(seen.probe.build)
    if running is None or applied is None or applied.image != wanted.reference:
        return None
    if not versions.is_older(running, wanted.oldest):
        return None
    return Advice(
        "envoy-outdated",
        f"Envoy {running} is older than {wanted.oldest}, which this release is made for and tested with. "
        "Set `images.envoy` to a newer one, or to `bundled`.",
    )


def _disputed_addresses(observed: Observed, desired: Desired) -> Iterator[Advice]:
    """Tell who else answers ARP at an address of ours, where the engine knows of nobody.

    Whoever may send raw packets can answer so, in anybody's name and for as long as they like. If that were a
    finding, an agent could have its neighbours taken off the network, siblings replaced, and every proof fail.
    """
    known = {place.address for places in observed.attached.values() for place in places.values()}
    for seen in observed.siblings.values():
        for other in seen.probe.others if seen.probe else ():
            address, _, hardware = other.partition(" ")
            if address not in known:
                yield Advice("address-disputed", _rumour(address, hardware, observed, desired))


def _rumour(address: str, hardware: str, observed: Observed, desired: Desired) -> str:
    ours = "the service address" if address == str(desired.service_address) else "an address of ours"
    names = sorted(
        name for places in observed.attached.values() for name, each in places.items() if each.hardware == hardware
    )
    whose = f", which is that of {names[0]} or of somebody who pretends to be it" if names else ""
    return f"Somebody else answers ARP for {address}, {ours}, with the hardware address {hardware}{whose}."
