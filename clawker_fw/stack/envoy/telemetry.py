"""Envoy's telemetry: access logs over OTLP, their cluster, and the relay for CoreDNS's records.

The logs are in the listeners whenever an endpoint is set. Certificates change only clusters, because a changed log
would end connections. A log without a cluster counts and drops its records. The limits here keep a collector that
is down, slow or silent from delaying agents (measured).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from clawker_fw.certificates.credentials import address_of
from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.policy import Policy
from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack.collector import CLUSTER, CONNECTION, RELAY, REQUEST, TelemetryTarget
from clawker_fw.stack.envoy import bounds, messages
from clawker_fw.stack.envoy.messages import TYPES, Json, extension
from clawker_fw.stack.resources import EnvoyProof, Resource, discovery_response
from clawker_fw.stack.topology import EnvoyAddresses

_MOST = {"max_connections": 2, "max_pending_requests": 16, "max_requests": 32}
_HTTP2 = {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}

_RELAYED = 8
"""Connections of both CoreDNS containers: one each, and one more while its certificate changes."""

LISTENER = "telemetry"
NAME = "clawker_fw.name"
"""The filter state with the name behind a listener for opaque connections."""

CLIENT = "clawker_fw.client"
"""The filter state with the agent's address, for a request's record."""

_KEY = "clawker_fw.allowed_per_million"
_MILLION = 1_000_000

SAMPLING = Resource("sampling", "rtds/sampling.json", envoy=EnvoyProof("", (), "runtime", _KEY))


@dataclass(frozen=True, slots=True)
class Reporting:
    """Telemetry of the Envoy in one slot: it listens at `relay` for both CoreDNS, and connects from `source`."""

    telemetry: TelemetryTarget
    relay: IPv4Address
    source: IPv4Address
    senders: tuple[IPv4Address, ...]
    slot: int

    def allowed(self, filter_: Json, fields: Mapping[str, str]) -> Json:
        """Return the log of the sampled part of forwarded traffic."""
        sampled = {"and_filter": {"filters": [messages.share(_KEY, _MILLION), filter_]}}
        return self.log(sampled, {**fields, "reason": ""}, "allowed")

    def log(self, filter_: Json, fields: Mapping[str, str], action: str = "refused") -> Json:
        """Return the log of what a filter passes. `fields` are those of the log on standard output."""
        cel: Json = {"formatters": [extension("formatter.cel.v3.Cel")]}
        log = extension(
            "access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            log_name="clawker_fw",
            stat_prefix=f"{CLUSTER}.",
            disable_builtin_labels=True,
            grpc_service={
                "envoy_grpc": {"cluster_name": CLUSTER, "authority": self.telemetry.server_name},
                "timeout": "5s",
            },
            buffer_flush_interval="1s",
            buffer_size_bytes=16 << 10,
            resource_attributes=_key_values(self.telemetry.resource(Sibling.ENVOY, self.slot)),
            attributes=_key_values(_attributes(fields, action)),
            **(cel if any("%CEL(" in field for field in fields.values()) else {}),
        )
        return {**log, "filter": filter_}

    def clusters(self) -> list[Json]:
        """Return the clusters that lead to the collector, or none without credentials."""
        credentials = self.telemetry.credentials
        if credentials is None:
            return []
        own = {
            **self._cluster(CLUSTER),
            "circuit_breakers": {"thresholds": [{**_MOST, "max_retries": 0}]},
            **messages.http_options(explicit_http_config={"http2_protocol_options": _HTTP2}),
            "transport_socket": self.telemetry.envoy_tls(credentials),
        }
        return [own, {**self._cluster(RELAY), "circuit_breakers": {"thresholds": [{"max_connections": _RELAYED}]}}]

    def _cluster(self, name: str) -> Json:
        return {
            "@type": f"{TYPES}.config.cluster.v3.Cluster",
            "name": name,
            **({"type": "STATIC"} if address_of(self.telemetry.host) else looked_up()),
            **messages.endpoint(name, messages.socket(self.telemetry.host, self.telemetry.port)),
            "per_connection_buffer_limit_bytes": bounds.BUFFER,
            **messages.source(str(self.source)),
        }

    def listener(self) -> Json:
        """Return the listener that forwards CoreDNS's records. It refuses all others, as the kernel does."""
        senders = [{"address_prefix": str(address), "prefix_len": 32} for address in self.senders]
        kind = "filters.network.tcp_proxy.v3.TcpProxy"
        proxy = extension(kind, stat_prefix=LISTENER, cluster=RELAY, idle_timeout="300s")
        chain = {"name": RELAY, "filter_chain_match": {"source_prefix_ranges": senders}, "filters": [proxy]}
        return messages.listener(
            LISTENER,
            LISTENER,
            per_connection_buffer_limit_bytes=bounds.BUFFER,
            **bounds.watched(),
            address=messages.socket(str(self.relay), self.telemetry.relay_port),
            filter_chains=[chain],
        )


@dataclass(frozen=True, slots=True)
class Serving:
    """What an Envoy serves, and where."""

    policy: Policy
    addresses: EnvoyAddresses
    limits: LimitSettings
    reporting: Reporting | None = None


def looked_up() -> Json:
    """Return the fields of a cluster for a name's first address. A new address ends no open connection."""
    return {
        "cluster_type": extension(
            "clusters.dns.v3.DnsCluster",
            dns_lookup_family="V4_ONLY",
            all_addresses_in_single_endpoint=True,
            respect_dns_ttl=True,
            dns_refresh_rate="60s",
            dns_failure_refresh_rate={"base_interval": "1s", "max_interval": "10s"},
        ),
        # Otherwise the listener, and with it the commit, would wait for a silent name server.
        "wait_for_warm_on_init": False,
    }


def sampling(share: float) -> bytes:
    """Return the dynamic file for a share of 0 to 1, exact to a millionth. It is text, as Envoy rounds numbers.

    It is in a layer of Envoy's runtime, because in a listener, a changed share would end connections.
    """
    layer = {_KEY: str(round(share * _MILLION))}
    kind = f"{TYPES}.service.runtime.v3.Runtime"
    return discovery_response([{"@type": kind, "name": "sampling", "layer": layer}])


_NAMES = {
    "port": "server.port",
    "name": "server.address",
    "method": "http.request.method",
    "path": "url.path",
    "upstream": "network.peer.address",
    "failure": "error.message",
    "reason": "clawker_fw.reason",
    "flags": "clawker_fw.envoy.flags",
    "details": "clawker_fw.envoy.details",
}
"""The attributes that equal a field of the log on standard output."""


def _attributes(fields: Mapping[str, str], action: str) -> dict[str, str]:
    protocol = fields["protocol"]
    http = protocol in {"http", "https"}
    return {
        "event.name": REQUEST if http else CONNECTION,
        "clawker_fw.action": action,
        "network.protocol.name": protocol,
        "network.transport": "udp" if protocol == "udp" else "tcp",
        "client.address": fields.get("client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        **({"http.response.status_code": "%RESPONSE_CODE%"} if http else {}),
        **({} if http else {"client.port": "%DOWNSTREAM_REMOTE_PORT%"}),
        "clawker_fw.rule": fields.get("rule", "%FILTER_CHAIN_NAME%"),
        "clawker_fw.bytes_received": "%BYTES_RECEIVED%",
        "clawker_fw.bytes_sent": "%BYTES_SENT%",
        "clawker_fw.duration_ms": "%DURATION%",
        **{_NAMES[field]: text for field, text in fields.items() if field in _NAMES and text},
    }


def _key_values(values: Mapping[str, str]) -> Json:
    return {"values": [{"key": key, "value": {"string_value": values[key]}} for key in sorted(values)]}
