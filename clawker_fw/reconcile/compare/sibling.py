"""diff: compare a sibling with the desired one, layer by layer. Pure."""

from collections.abc import Iterator

from clawker_fw.model.desired import Desired
from clawker_fw.model.differences import Finding
from clawker_fw.model.observed import Observed, ObservedSibling
from clawker_fw.model.secrets import SecretDifference
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare import boot, drift_labels, hot, image, live, shape, state
from clawker_fw.reconcile.compare.pair import SiblingPair

_LAYERS = (state, drift_labels, image, shape, boot, hot, live)


def sibling_findings(
    observed: Observed, desired: Desired, sibling: ObservedSibling, secrets: tuple[SecretDifference, ...]
) -> Iterator[Finding]:
    """Yield a sibling's differences. Its health and what agents see of it count only if nothing else differs."""
    pair = SiblingPair(observed, desired, sibling, secrets if sibling.sibling is Sibling.ENVOY else ())
    differing = [finding for layer in _LAYERS for finding in layer.findings(pair)]
    yield from differing or (*state.health(pair), *live.as_agents_see(pair))
