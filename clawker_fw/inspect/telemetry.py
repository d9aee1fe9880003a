"""Why the siblings do not send to the collector although there are certificates. Pure."""

from clawker_fw.model import Desired, Observed, ObservedSibling, Sibling
from clawker_fw.stack.labels import INFRA_CERTS_READY
from clawker_fw.stack.telemetry import certificates, destination, is_live


def obstacle(observed: Observed, desired: Desired, live: str) -> str:
    """Return why the siblings do not send to the collector although there are certificates, or an empty string.

    `live` is why what is live can't be used.
    """
    if observed.absent:
        return f"the stack {desired.project} is not up"
    if lacking := [each.value for each in Sibling if not _has_loaded(observed.siblings.get(each))]:
        return f"{' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} loaded no certificate"
    there = destination({sibling: each.files for sibling, each in observed.siblings.items()})
    if live or there is None:
        return live
    endpoint, name = there
    wanted = destination({sibling: each.hot for sibling, each in desired.siblings.items()})
    if wanted is None or wanted == there:
        return ""
    return f"the siblings send to {endpoint}{f' only if it is {name}' if wanted[0] == endpoint else ''}"


def _has_loaded(seen: ObservedSibling | None) -> bool:
    """Whether a sibling was made for telemetry, and says that it has loaded its certificate."""
    if seen is None or seen.probe is None or seen.container.labels.get(INFRA_CERTS_READY) != "true":
        return False
    return certificates(seen.sibling, seen.files) is not None and is_live(
        seen.sibling, seen.files, seen.probe.live
    )
