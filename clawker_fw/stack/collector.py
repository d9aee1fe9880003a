"""Telemetry: the siblings' configuration for the collector.

Envoy has its certificate and key in its clusters, CoreDNS in `hot/telemetry/telemetry.json`. Both files are
written, and read back from a stack, here.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from clawker_fw.certificates.credentials import Credentials, Pair, Running, address_of
from clawker_fw.model.files import File, Files
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack import container
from clawker_fw.stack.envoy.messages import TYPES, Json, typed
from clawker_fw.stack.files import canonical, read_record, secret
from clawker_fw.stack.resources import PRIVATE_KEY, Resource, declared

CONNECTION, REQUEST, QUERY = "clawker_fw.connection", "clawker_fw.request", "dns.query"
"""The kinds of records (`event.name`): a connection or UDP session, an HTTP request, a DNS query."""

RESOURCE = Resource("telemetry", "telemetry/telemetry.json", hashed=True, keyed=True)

FILE = container.HOT + RESOURCE.path

CLUSTERS_PATH = "cds/clusters.json"
"""Envoy's clusters, below `hot/`, including those to the collector, with key and certificate."""

CLUSTERS = container.HOT + CLUSTERS_PATH

CLUSTER, RELAY = "telemetry", "telemetry-relay"
"""Envoy's clusters to the collector: for its own records, and for CoreDNS's, which stay encrypted."""


@dataclass(frozen=True, slots=True)
class TelemetryTarget:
    """The collector, and the name that its certificate must have. Without `credentials`, nothing is sent."""

    host: str
    port: int
    server_name: str
    relay_port: int
    sample: float
    project: str
    release: str
    build_sha: str
    credentials: Credentials | None = None

    def resource(self, sibling: Sibling, slot: int) -> dict[str, str]:
        """Return the attributes of a sibling's resource."""
        return {
            "service.name": f"clawker-fw-{sibling}",
            "service.version": self.release,
            "clawker_fw.project": self.project,
            "clawker_fw.stack_build_sha": self.build_sha,
            "clawker_fw.slot": str(slot),
        }

    def envoy_tls(self, credentials: Credentials) -> Json:
        """Return TLS 1.3 for Envoy's cluster. The server's certificate must have exactly the expected name."""
        versions = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
        address = address_of(self.server_name)
        kind = "IP_ADDRESS" if address else "DNS"
        pair = {"certificate_chain": credentials.envoy.certificate, "private_key": credentials.envoy.key}
        return typed(
            "envoy.transport_sockets.tls",
            f"{TYPES}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context={
                "tls_params": versions,
                "tls_certificates": [{name: {"inline_string": part.decode()} for name, part in pair.items()}],
                "validation_context": {
                    "trusted_ca": {"inline_string": credentials.trust.decode()},
                    "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": self.server_name}}],
                },
                "alpn_protocols": ["h2"],
            },
            **({} if address else {"sni": self.server_name}),
        )


def coredns_file(telemetry: TelemetryTarget | None, relay: str, slot: int) -> File:
    """Return CoreDNS's file: `{}`, or where and how it sends. `relay` is Envoy's address for that.

    It is secret even without a key, so that a changed mode or owner shows tampering.
    """
    if telemetry is None or telemetry.credentials is None:
        return secret(b"{}")
    document = {
        "endpoint": f"{relay}:{telemetry.relay_port}",
        "server_name": telemetry.server_name,
        "ca": telemetry.credentials.trust.decode(),
        **telemetry.credentials.coredns.document,
        "sample": telemetry.sample,
        "resource": telemetry.resource(Sibling.COREDNS, slot),
    }
    return secret(canonical(document))


def running(files: Mapping[Sibling, Files]) -> Running:
    """Return the credentials in the files of a stack's siblings."""
    envoy = _in_clusters(files.get(Sibling.ENVOY, {}))
    coredns = _in_file(files.get(Sibling.COREDNS, {}))
    if envoy is None or coredns is None:
        return Running(any=envoy is not None or coredns is not None)
    (trust, its), (_, others) = envoy, coredns
    return Running(Credentials(trust, its, others), any=True)


def certificates(sibling: Sibling, files: Files) -> tuple[bytes, bytes] | None:
    """Return a sibling's CAs and certificate, or None."""
    credentials = _in_clusters(files) if sibling is Sibling.ENVOY else _in_file(files)
    return (credentials[0], credentials[1].certificate) if credentials else None


def is_live(sibling: Sibling, files: Files, live: Mapping[str, str]) -> bool:
    """Whether a sibling has loaded its files. `live` are the digests that it reports."""
    path = CLUSTERS if sibling is Sibling.ENVOY else FILE
    for resource in declared(files):
        if container.HOT + resource.path == path and path in files:
            return live.get(resource.name) == resource.digest(files[path].content)
    return False


def destination(files: Mapping[Sibling, Files]) -> tuple[str, str] | None:
    """Return the endpoint in the siblings' files, and the name that it must prove."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        (place,) = _cluster(files[Sibling.ENVOY])["load_assignment"]["endpoints"]
        (endpoint,) = place["lb_endpoints"]
        to = endpoint["endpoint"]["address"]["socket_address"]
        record = read_record(files[Sibling.COREDNS][FILE].content)
        return f"{to['address']}:{to['port_value']}", str(record["server_name"])
    return None


def _in_file(files: Files) -> tuple[bytes, Pair] | None:
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        record = read_record(files[FILE].content)
        return record["ca"].encode(), Pair.read(record)
    return None


def _in_clusters(files: Files) -> tuple[bytes, Pair] | None:
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        context = _cluster(files)["transport_socket"]["typed_config"]["common_tls_context"]
        trust = context["validation_context"]["trusted_ca"]["inline_string"]
        (own,) = context["tls_certificates"]
        chain, key = (own[name]["inline_string"] for name in ("certificate_chain", "private_key"))
        return trust.encode(), Pair(chain.encode(), key.encode())
    return None


def _cluster(files: Files) -> Mapping[str, Any]:
    """Return Envoy's cluster to the collector. Without a key, no cluster is parsed: there can be many."""
    content = files[CLUSTERS].content
    if PRIVATE_KEY not in content:
        raise ValueError(CLUSTER)
    resources: list[Mapping[str, Any]] = read_record(content)["resources"]
    (cluster,) = (resource for resource in resources if resource["name"] == CLUSTER)
    return cluster
