"""Every kind of tampering that is tested: how it is done, what `drift` reports, and what repairs it."""

from collections.abc import Mapping, Sequence

from devkit.tampering.containers import CONTAINERS, WITH_ANOTHER_RUNTIME
from devkit.tampering.files import FILES
from devkit.tampering.images import IMAGES
from devkit.tampering.inside_network import MOUNTED_FILES, NETWORK_NAMESPACE
from devkit.tampering.networks import NETWORKS
from devkit.tampering.running import RUNNING, SEEN_BY_AGENTS
from devkit.tampering.states import STATES
from devkit.tampering.way import Tampering

__all__ = ["TAMPERINGS", "WITH_ANOTHER_RUNTIME", "Tampering"]

TAMPERINGS: Mapping[str, Sequence[Tampering]] = {
    "States": STATES,
    "Containers": CONTAINERS,
    "Images": IMAGES,
    "Networks": NETWORKS,
    "Files": FILES,
    "Running program": RUNNING,
    "Network namespace": NETWORK_NAMESPACE,
    "Files mounted by the engine": MOUNTED_FILES,
    "Visible to agents only": SEEN_BY_AGENTS,
}
