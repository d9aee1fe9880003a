"""Telemetry: what the siblings are told about the collector, and every attribute of the records that they send.

Names are those of OpenTelemetry's semantic conventions where they exist, and begin with `clawker_fw.` where not.
Each sibling has its certificate and key in a file: Envoy in its clusters, and CoreDNS in
`hot/telemetry/telemetry.json`. Both are written, and read back from a stack, here.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from clawker_fw.certificates.credentials import Credentials, Pair, Running, address_of
from clawker_fw.model import File, Files, Sibling
from clawker_fw.stack import container
from clawker_fw.stack.envoy.messages import TYPES, Json, typed
from clawker_fw.stack.files import secret
from clawker_fw.stack.resources import PRIVATE_KEY, Resource, declared

CONNECTION, REQUEST, QUERY = "clawker_fw.connection", "clawker_fw.request", "dns.query"
"""The kinds of records (`event.name`): a connection or session of UDP, an HTTP request, a DNS query."""

RESOURCE = Resource("telemetry", "telemetry/telemetry.json", hashed=True, keyed=True)
"""What CoreDNS is told."""

FILE = container.HOT + RESOURCE.path

CLUSTERS_PATH = "cds/clusters.json"
"""Where Envoy's clusters are, below `hot/`: with those that lead to the collector, its key and certificate."""

CLUSTERS = container.HOT + CLUSTERS_PATH

CLUSTER, RELAY = "telemetry", "telemetry-relay"
"""Envoy's clusters that lead to the collector: for its own records, and for CoreDNS's, which stay encrypted."""


class Attribute(NamedTuple):
    """An attribute of a record: its name, what it says, and the kinds of records that have it."""

    name: str
    meaning: str
    events: tuple[str, ...]


_ALL, _BY_ENVOY = (CONNECTION, REQUEST, QUERY), (CONNECTION, REQUEST)

ATTRIBUTES = (
    Attribute("event.name", "the kind of record; CoreDNS's records have it as their `EventName`", _ALL),
    Attribute("client.address", "the agent's address", _ALL),
    Attribute("client.port", "the agent's port", (CONNECTION,)),
    Attribute("server.address", "the name that the agent requested, as it was sent", _BY_ENVOY),
    Attribute("server.port", "the port to which the agent connected", _BY_ENVOY),
    Attribute("network.transport", "`tcp` or `udp`", _BY_ENVOY),
    Attribute("network.protocol.name", "`tls`, `http`, `tcp` or `udp`", _BY_ENVOY),
    Attribute("network.peer.address", "the address and port to which Envoy connected", _BY_ENVOY),
    Attribute("http.request.method", "the method", (REQUEST,)),
    Attribute("url.path", "the path without the query, which may hold secrets", (REQUEST,)),
    Attribute("http.response.status_code", "the status that the agent got", (REQUEST,)),
    Attribute("error.message", "why Envoy could not connect", _BY_ENVOY),
    Attribute("dns.question.name", "the name that the agent queried", (QUERY,)),
    Attribute("dns.question.type", "the type of record that it queried", (QUERY,)),
    Attribute("dns.response.code", "the code of the answer", (QUERY,)),
    Attribute("dns.answer.count", "how many records the answer had", (QUERY,)),
    Attribute("clawker_fw.action", "`allowed` or `refused`: the decision, not a guess from a code", _ALL),
    Attribute("clawker_fw.reason", "why it was refused, as in the log; CoreDNS's allowed queries have none", _ALL),
    Attribute(
        "clawker_fw.rule", "the filter chain or route of the rule that decided, or the rule itself", _BY_ENVOY
    ),
    Attribute("clawker_fw.bytes_received", "octets that the agent sent", _BY_ENVOY),
    Attribute("clawker_fw.bytes_sent", "octets that the agent got", _BY_ENVOY),
    Attribute("clawker_fw.duration_ms", "how long it took, in milliseconds", _ALL),
    Attribute("clawker_fw.envoy.flags", "Envoy's response flags", _BY_ENVOY),
    Attribute("clawker_fw.envoy.details", "Envoy's response code details", _BY_ENVOY),
)
"""Of Envoy's records every value is text, and `-` where there is none."""

RESOURCE_ATTRIBUTES = (
    Attribute("service.name", "`clawker-fw-envoy` or `clawker-fw-coredns`", _ALL),
    Attribute("service.version", "the release of clawker-fw", _ALL),
    Attribute("clawker_fw.project", "the project of the stack", _ALL),
    Attribute("clawker_fw.stack_build_sha", "what the container is made from, as in its label", _ALL),
    Attribute("clawker_fw.slot", "the container's slot, 0 or 1", _ALL),
)
"""Attributes of the resource, which all records of a sibling share."""


@dataclass(frozen=True, slots=True)
class TelemetryTarget:
    """Where records go, and as whom. Without `credentials`, nothing is sent.

    `server_name` is the name or address that the collector's certificate must have.
    """

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
        """Return TLS 1.3 for Envoy's cluster, to a server whose certificate has exactly the expected name."""
        versions = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
        address = address_of(self.server_name)
        kind = "IP_ADDRESS" if address else "DNS"
        pair = credentials.envoy
        return typed(
            "envoy.transport_sockets.tls",
            f"{TYPES}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context={
                "tls_params": versions,
                "tls_certificates": [
                    {
                        "certificate_chain": {"inline_string": pair.certificate.decode()},
                        "private_key": {"inline_string": pair.key.decode()},
                    }
                ],
                "validation_context": {
                    "trusted_ca": {"inline_string": credentials.trust.decode()},
                    "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": self.server_name}}],
                },
                "alpn_protocols": ["h2"],
            },
            **({} if address else {"sni": self.server_name}),
        )


def coredns_file(telemetry: TelemetryTarget | None, relay: str, slot: int) -> File:
    """Return the file for CoreDNS: `{}`, or where and how it sends. `relay` is Envoy's address for that.

    It is a secret also without a key: another mode or owner is the work of somebody else.
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
    return secret(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def running(files: Mapping[Sibling, Files]) -> Running:
    """Return the credentials that a stack's siblings have, from their files."""
    envoy = _in_clusters(files.get(Sibling.ENVOY, {}))
    coredns = _in_file(files.get(Sibling.COREDNS, {}))
    if envoy is None or coredns is None:
        return Running(any=envoy is not None or coredns is not None)
    (trust, its), (_, others) = envoy, coredns
    return Running(Credentials(trust, its, others), any=True)


def certificates(sibling: Sibling, files: Files) -> tuple[bytes, bytes] | None:
    """Return the authorities and the certificate that a sibling has been given, or None."""
    found = _in_clusters(files) if sibling is Sibling.ENVOY else _in_file(files)
    return (found[0], found[1].certificate) if found else None


def is_live(sibling: Sibling, files: Files, live: Mapping[str, str]) -> bool:
    """Whether a sibling has loaded what it has been given. `live` are the digests that it reports."""
    path = CLUSTERS if sibling is Sibling.ENVOY else FILE
    for each in declared(files):
        if container.HOT + each.path == path and path in files:
            return live.get(each.name) == each.digest(files[path].content)
    return False


def destination(files: Mapping[Sibling, Files]) -> tuple[str, str] | None:
    """Return the endpoint to which a stack's siblings send, and the name that it must prove, from their files."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        (place,) = _cluster(files[Sibling.ENVOY])["load_assignment"]["endpoints"]
        (endpoint,) = place["lb_endpoints"]
        to = endpoint["endpoint"]["address"]["socket_address"]
        told = json.loads(files[Sibling.COREDNS][FILE].content)
        return f"{to['address']}:{to['port_value']}", str(told["server_name"])
    return None


def _in_file(files: Files) -> tuple[bytes, Pair] | None:
    """Return the trusted authorities and the pair in CoreDNS's file, or None if there are none."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        found = json.loads(files[FILE].content)
        return found["ca"].encode(), Pair.read(found)
    return None


def _in_clusters(files: Files) -> tuple[bytes, Pair] | None:
    """Return the same from Envoy's clusters."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        context = _cluster(files)["transport_socket"]["typed_config"]["common_tls_context"]
        trust = context["validation_context"]["trusted_ca"]["inline_string"]
        (own,) = context["tls_certificates"]
        chain, key = (own[name]["inline_string"] for name in ("certificate_chain", "private_key"))
        return trust.encode(), Pair(chain.encode(), key.encode())
    return None


def _cluster(files: Files) -> Mapping[str, Any]:
    """Return Envoy's cluster that leads to the collector. Clusters can be many: without a key, none is read.

    Raises:
        KeyError, TypeError, ValueError: when there is none.
    """
    content = files[CLUSTERS].content
    if PRIVATE_KEY not in content:
        raise ValueError(CLUSTER)
    resources: list[Mapping[str, Any]] = json.loads(content)["resources"]
    (cluster,) = (each for each in resources if each["name"] == CLUSTER)
    return cluster
