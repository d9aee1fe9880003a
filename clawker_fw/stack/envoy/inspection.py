"""How Envoy gets a certificate for each name that it inspects: from the signer beside it (`fwctl sign`).

Envoy asks for the certificate when a name is first used, and keeps it until the signer takes it back. It asks on
one stream for all names (ADS): with a stream for each, 1,000 names would be too many for it.
"""

import json
from collections.abc import Iterable

from clawker_fw.certificates.credentials import Pair
from clawker_fw.model import Files
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.envoy.messages import TYPES, Json, extension
from clawker_fw.stack.files import public, signers

FOLDER = "/tmp/signer"  # noqa: S108 - inside the container; the keeper makes it, and only Envoy's group can enter
SOCKET = "ads"
"""The socket in the folder on which Envoy asks."""

NAMES, INTERMEDIATES = "hot/inspected/names.json", "hot/signing/intermediates.json"
"""What the signer reads. It reads either again when it has changed. Intermediates go into place before names."""

CLUSTER = "signer"

HANDSHAKE = "4s"
"""How long a handshake may take: one for a new name waits while the signer does not answer."""

_RETRY = {"base_interval": "0.100s", "max_interval": "0.500s"}
"""After which time Envoy connects again to a signer that has ended."""


def boot_settings() -> Json:
    """Return what `boot/sibling.json` has under `signer`, by which `fwctl serve` starts it."""
    return {"folder": FOLDER}


def files(names: Iterable[str], subtrees: Iterable[str], intermediates: Iterable[Pair]) -> Files:
    """Return the signer's files. A subtree is named without a dot before it, and includes its own name."""
    pairs = [{"certificate": each.certificate.decode(), "key": each.key.decode()} for each in intermediates]
    return {
        INTERMEDIATES: signers(_encode({"intermediates": pairs})),
        NAMES: public(_encode({"names": sorted(names), "subtrees": sorted(subtrees)})),
    }


def read_intermediates(content: bytes) -> list[Pair]:
    """Return what is in a signer's file of intermediates, or nothing if it is none."""
    try:
        return [
            Pair(each["certificate"].encode(), each["key"].encode())
            for each in json.loads(content)["intermediates"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def chain() -> Json:
    """Return what a filter chain has that ends TLS, with a certificate for the name that the client has sent.

    Sessions can't be resumed: Envoy refuses to make a certificate on demand otherwise.
    """
    selector = extension(
        "on_demand",
        "transport_sockets.tls.cert_selectors.on_demand_secret.v3.Config",
        config_source={"ads": {}, "resource_api_version": "V3"},
        certificate_mapper=extension(
            "sni", "transport_sockets.tls.cert_mappers.sni.v3.SNI", default_value="no-server-name.invalid"
        ),
    )
    return {
        "transport_socket": extension(
            "envoy.transport_sockets.tls",
            "transport_sockets.tls.v3.DownstreamTlsContext",
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
            common_tls_context={
                "alpn_protocols": ["h2", "http/1.1"],
                "custom_tls_certificate_selector": selector,
            },
        ),
        "transport_socket_connect_timeout": HANDSHAKE,
    }


def ads_config() -> Json:
    """Return the part `dynamic_resources.ads_config` of the bootstrap."""
    return {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [
            {"envoy_grpc": {"cluster_name": CLUSTER, "retry_policy": {"retry_back_off": _RETRY}}},
        ],
    }


def cluster(folder: str = FOLDER) -> Json:
    """Return the cluster of the bootstrap that leads to the signer."""
    options = "upstreams.http.v3.HttpProtocolOptions"
    address = {"pipe": {"path": f"{folder}/{SOCKET}"}}
    return {
        "name": CLUSTER,
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": bounds.BUFFER,
        "typed_extension_protocol_options": {
            f"envoy.extensions.{options}": {
                "@type": f"{TYPES}.extensions.{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def stats_config() -> Json:
    """Return the part `stats_config` of the bootstrap: without statistics of each certificate (7 KB)."""
    patterns = [{"prefix": "sds."}, {"contains": "ssl.certificate."}]
    return {"stats_matcher": {"exclusion_list": {"patterns": patterns}}}
