"""Which share of what is allowed Envoy sends to a collector: a layer of its runtime, in a file of its own.

In the listeners, where the filter is that uses it, a changed share would end open connections.
"""

from clawker_fw.stack import container
from clawker_fw.stack.envoy.messages import TYPES, Json, config_source
from clawker_fw.stack.resources import EnvoyProof, Resource, discovery_response, watched_folder

ALL = 1.0

_LAYER = "sampling"
_KEY = "clawker_fw.allowed_per_million"
_MILLION = 1_000_000

_PATH = "rtds/sampling.json"

RESOURCE = Resource("sampling", _PATH, envoy=EnvoyProof("", (), "runtime", _KEY), watched=watched_folder(_PATH))

FILE = container.HOT + RESOURCE.path

FILTER: Json = {
    "runtime_filter": {
        "runtime_key": _KEY,
        "percent_sampled": {"numerator": _MILLION, "denominator": "MILLION"},
        "use_independent_randomness": True,
    }
}
"""The access log filter that lets the share pass. It takes the numerator from the runtime, but no fraction."""


def content(share: float) -> bytes:
    """Return the hot file for a share of 0 to 1, exact to a millionth.

    The number is text, because Envoy shows text as it is, and numbers rounded.
    """
    layer = {_KEY: str(round(share * _MILLION))}
    kind = f"{TYPES}.service.runtime.v3.Runtime"
    return discovery_response([{"@type": kind, "name": _LAYER, "layer": layer}])


def layer() -> Json:
    """Return the layer of the bootstrap that reads the file."""
    return {"name": _LAYER, "rtds_layer": {"name": _LAYER, "rtds_config": config_source(_PATH)}}
