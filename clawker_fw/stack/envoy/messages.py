"""What Envoy's configuration is written with: extensions, as JSON values in canonical form.

Field names are those of the Envoy v3 API reference.
"""

from collections.abc import Mapping
from typing import Any

from clawker_fw.stack.envoy import bounds

Json = dict[str, Any]

TYPES = "type.googleapis.com/envoy"

GUARDED, EXEMPT = "guarded", "exempt"
"""The two clusters: by the source address of one nothing private can be reached, by that of the other it can."""

PORT, HOST = "envoy.upstream.dynamic_port", "envoy.upstream.dynamic_host"
"""The filter states that say where a request goes: to the port that the agent has connected to, which nothing that
it sends can change, of the host that it names, in lower case."""

SOURCE = "clawker_fw.source"
"""The filter state with the agent's address and port, for the record."""

THROUGH_RULES = "http-rules"
"""The internal listener that HTTP requests go through, and the cluster that leads to it."""

DNS_CACHE: Mapping[str, Any] = {
    "name": "world",
    "dns_lookup_family": "V4_ONLY",
    "max_hosts": 65536,
    "dns_cache_circuit_breaker": {"max_pending_requests": bounds.LOOKUPS},
    # A name that nobody has asked for lately is forgotten when its TTL ends; until then it is looked up again.
    "host_ttl": "1s",
    # For answers without a TTL, as for a name that does not exist.
    "dns_refresh_rate": "1s",
    "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "10s"},
    "typed_dns_resolver_config": {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": f"{TYPES}.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "dns_resolver_options": {"no_default_search_domain": True},
        },
    },
}

HOST_NAME = ("(?:[A-Za-z0-9_-]{1,63}[.])*[A-Za-z0-9_-]{1,63}", "[!-~]{1,253}")
"""The two expressions that every host name matches (RFC 1035, section 2.3.4, and the underscore).

Anything else means one thing to Envoy, which compares octets, and another to the resolver behind it, which knows
escapes: a name with a backslash would be matched as it stands, and looked up as another.
"""

RUNTIME = {"re2.max_program_size.error_level": 2000}
"""Envoy's runtime settings: by default it refuses expressions as large as those for a host name."""


def duration(seconds: float) -> str:
    """Return a duration as Envoy prints it, to the millisecond."""
    return f"{seconds:.3f}".removesuffix(".000") + "s"


def extension(name: str, kind: str, **config: Any) -> Json:  # noqa: ANN401 - JSON
    """Return one of Envoy's extensions with its configuration."""
    return typed(name, f"{TYPES}.extensions.{kind}", **config)


def typed(name: str, type_: str, **config: Any) -> Json:  # noqa: ANN401 - JSON
    """Return a named configuration of a type, written out in full."""
    return {"name": name, "typed_config": {"@type": type_, **config}}
