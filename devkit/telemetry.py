"""Every attribute of the records that the siblings send, as the documentation has them.

Names are those of OpenTelemetry's semantic conventions where they exist, and begin with `clawker_fw.` where not.
"""

from typing import NamedTuple

from clawker_fw.stack.telemetry import CONNECTION, QUERY, REQUEST


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
