"""Envoy's extensions in our configuration: stable by Envoy's own table, or listed in the threat model."""

import re

from devkit.stacks import CHECKOUT

GOLDENS = CHECKOUT / "tests" / "golden" / "expected"
_NAMES = """
CaresDnsResolverConfig Composite direct_response DnsCluster DownstreamConnectionsConfig
DownstreamTlsContext dynamic_forward_proxy FilterStateInput HttpConnectionManager HTTPFault
HttpProtocolOptions InternalListener InternalUpstreamTransport local_ratelimit PreviousPrioritiesConfig
RawBuffer RBAC Router ServerNameInput StdoutAccessLog TcpProxy TlsInspector TransportProtocolInput
UdpProxyConfig UpstreamCodec UpstreamTlsContext
"""
STABLE = set(_NAMES.split())
"""By `source/extensions/extensions_metadata.yaml` of Envoy 1.40."""

PARTS = {"ClusterAction", "Route"}
"""Messages inside of another extension's configuration."""


def test_every_extension_is_stable_or_in_the_threat_model() -> None:
    """An extension is identified by its message, or by its package if that says more."""
    found = set()
    for path in GOLDENS.rglob("*.json"):
        for package, message in re.findall(
            r"(?:envoy\.extensions|xds\.type)\.([a-z0-9_.]+)\.v3\.(\w+)", path.read_text()
        ):
            plain = message in {"Config", "FilterConfig", "ClusterConfig", "LocalRateLimit"}
            found.add(package.rpartition(".")[2] if plain else message)
    page = (CHECKOUT / "docs" / "threat-model.md").read_text()
    named = {name.partition(".")[0] for name in re.findall(r"`([\w.]+)`", page)}
    packages = {
        "HeaderMutation": "header_mutation",
        "CustomResponse": "custom_response",
        "FixedHeapConfig": "fixed_heap",
    }
    unnamed = {packages.get(name, name) for name in found} - named - STABLE - PARTS
    assert unnamed == set()
    assert not STABLE & named, "a stable extension needs no warning"
