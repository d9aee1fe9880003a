"""What Envoy's configuration is written with: extensions, as JSON values in canonical form.

Field names are those of the Envoy v3 API reference.
"""

from typing import Any

from clawker_fw.stack import container
from clawker_fw.stack.resources import watched_folder

Json = dict[str, Any]

TYPES = "type.googleapis.com/envoy"

PORT, HOST = "envoy.upstream.dynamic_port", "envoy.upstream.dynamic_host"
"""The filter states that say where a request goes: to the port that the agent has connected to, which nothing that
it sends can change, of the host that it names, in lower case."""

SOURCE, ASKED, SHARE = "clawker_fw.source", "clawker_fw.asked", "clawker_fw.share"
"""The filter states with the agent's address and port and the host that its request names, for the record, and
with the last number of its address, by which lookups are kept apart (`lookups`)."""

REQUEST = "clawker_fw.request"
"""The filter state that no two requests have alike. A connection to an origin has that of the request for which it
was opened."""

METHOD = "clawker_fw.method"
"""The filter state with a request's method."""

REPEATABLE = ("DELETE", "GET", "HEAD", "OPTIONS")
"""The methods of requests that are sent again, without content. They are idempotent (RFC 9110, section 9.2.2).

So is PUT, but its content is not kept.
"""

SENT_AGAIN = "again"
"""The second endpoint of an internal listener: connections for requests that had no answer on the first one."""

THROUGH_RULES = "http-rules"
"""The internal listener that HTTP requests go through, and the cluster that leads to it."""

DENIED_HTTP = "denied"
"""The route for what a rule denies within what another one allows."""

OBSERVED_HTTP = "observed"
"""The route for names without a rule, while they pass."""

TO_PAGE = "page"
"""The route of the page on which an agent reads what was refused to it, and the cluster that leads there.

Envoy says whose request it is. The recorder beside it answers (go/internal/page).
"""

THROUGH_PATHS = "https-rules"
"""The same for requests in TLS that is looked into."""

HOST_NAME = ("(?:[A-Za-z0-9_-]{1,63}[.])*[A-Za-z0-9_-]{1,63}", "[!-~]{1,253}")
"""The two expressions that every host name matches (RFC 1035, section 2.3.4, and the underscore).

Anything else means one thing to Envoy, which compares octets, and another to the resolver behind it, which knows
escapes: a name with a backslash would be matched as it stands, and looked up as another.
"""


STATUS = "HttpResponseStatusCodeMatchInput"
"""The input of a matcher that compares an answer's status."""


def duration(seconds: float) -> str:
    """Return a duration as Envoy prints it, to the millisecond."""
    return f"{seconds:.3f}".removesuffix(".000") + "s"


def extension(kind: str, name: str = "", **config: Any) -> Json:  # noqa: ANN401 - JSON
    """Return one of Envoy's extensions with its configuration. Its usual name follows from its kind."""
    return typed(name or f"envoy.{kind.partition('.v3.')[0]}", f"{TYPES}.extensions.{kind}", **config)


def listener(name: str, statistics: str, **fields: object) -> Json:
    """Return a listener."""
    return {"@type": f"{TYPES}.config.listener.v3.Listener", "name": name, "stat_prefix": statistics, **fields}


def socket(address: str, port: int) -> Json:
    """Return the address of a socket."""
    return {"socket_address": {"address": address, "port_value": port}}


def source(address: str) -> Json:
    """Return what has a cluster connect from an address of ours."""
    return {"upstream_bind_config": {"source_address": {"address": address, "port_value": 0}}}


def endpoint(cluster: str, address: Json, **state: str) -> Json:
    """Return what has a cluster lead to one address."""
    only = {"endpoint": {"address": address}, **state}
    return {"load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [only]}]}}


def http_options(**options: object) -> Json:
    """Return what has a cluster speak HTTP with these options."""
    kind = "extensions.upstreams.http.v3.HttpProtocolOptions"
    return {"typed_extension_protocol_options": {f"envoy.{kind}": {"@type": f"{TYPES}.{kind}", **options}}}


def share(key: str, per_million: int) -> Json:
    """Return the access log filter that lets a share pass. The runtime can set its numerator, but no fraction."""
    share = {"numerator": per_million, "denominator": "MILLION"}
    fields = {"runtime_key": key, "percent_sampled": share, "use_independent_randomness": True}
    return {"runtime_filter": fields}


def stdout(**log_format: object) -> Json:
    """Return an access log on standard output."""
    kind = "access_loggers.stream.v3.StdoutAccessLog"
    return extension(kind, "envoy.access_loggers.stdout", log_format=log_format)


def state(key: str, text: str, *formatters: Json, **fields: str) -> Json:
    """Return a filter state that one of Envoy's filters sets to a text, for what comes after it."""
    source: Json = {"text_format_source": {"inline_string": text}}
    if formatters:
        source["formatters"] = list(formatters)
    return {"object_key": key, "format_string": source, **fields}


def passed_on(key: str, text: str, *formatters: Json, **fields: str) -> Json:
    """Return a filter state that the internal listener knows as well."""
    return state(key, text, *formatters, shared_with_upstream="ONCE", **fields)


def config_source(path: str) -> Json:
    """Return how Envoy reads a hot file, and again whenever it is told. `path` is relative to `hot/`."""
    place = {
        "path": f"{container.VOLUME}/{container.HOT}{path}",
        "watched_directory": {"path": watched_folder(path)},
    }
    return {"resource_api_version": "V3", "path_config_source": place}


def cel_formatter() -> Json:
    """Return what makes `%CEL(...)%` available in a text, with functions for strings."""
    return extension("formatter.cel.v3.Cel", cel_config={"enable_string_functions": True})


def replacing(*pages: Json) -> Json:
    """Return what has Envoy answer some answers of a route's host itself. Each is one of `page`."""
    return {
        "@type": f"{TYPES}.extensions.filters.http.custom_response.v3.CustomResponse",
        "custom_response_matcher": {"matcher_list": {"matchers": list(pages)}},
    }


def page(name: str, compared: str, matched: Json, details: str, text: str, **of_input: str) -> Json:
    """Return how an answer with a matching status or header is replaced by a text, with the status 502.

    `compared` is the type of the input that `matched` is for, and `details` the response code details.
    """
    answer = extension(
        "http.custom_response.local_response_policy.v3.LocalResponsePolicy",
        name,
        status_code=502,
        response_code_details=details,
        body={"inline_string": f"clawker-fw: {text}\n"},
    )
    read = typed("status", f"{TYPES}.type.matcher.v3.{compared}", **of_input)
    predicate = {"single_predicate": {"input": read, "value_match": matched}}
    return {"predicate": predicate, "on_match": {"action": answer}}


def typed(name: str, type_: str, **config: Any) -> Json:  # noqa: ANN401 - JSON
    """Return a named configuration of a type, written out in full."""
    return {"name": name, "typed_config": {"@type": type_, **config}}
