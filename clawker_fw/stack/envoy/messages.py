"""Parts of Envoy's configuration, as JSON values in canonical form.

Field names are those of the Envoy v3 API reference.
"""

from typing import Any

from clawker_fw.stack import container
from clawker_fw.stack.resources import watched_folder

Json = dict[str, Any]

TYPES = "type.googleapis.com/envoy"

PORT, HOST = "envoy.upstream.dynamic_port", "envoy.upstream.dynamic_host"
"""The filter states with a request's destination: the host that it names, in lower case, and the port to which
the agent connected, which nothing in the request can change."""

SOURCE, ASKED, SHARE = "clawker_fw.source", "clawker_fw.asked", "clawker_fw.share"
"""The filter states with the agent's address and port, and with the host that its request names, for the log, and
with the last number of its address, for its own limits of lookups (`lookups`)."""

REQUEST = "clawker_fw.request"
"""The filter state that identifies a request. A connection to an origin has that of the request that opened it."""

METHOD = "clawker_fw.method"
"""The filter state with a request's method."""

REPEATABLE = ("DELETE", "GET", "HEAD", "OPTIONS")
"""The methods of requests that are sent again, without content. They are idempotent (RFC 9110, section 9.2.2).

So is PUT, but its content is not kept.
"""

SENT_AGAIN = "again"
"""The second endpoint of an internal listener: connections for requests that had no answer on the first one."""

THROUGH_RULES = "http-rules"
"""The internal listener for HTTP requests, and the cluster that leads to it."""

DENIED_HTTP = "denied"
"""The route for requests that a rule denies although another rule allows the parent domain."""

OBSERVED_HTTP = "observed"
"""The route for names without a rule while observing."""

TO_PAGE = "page"
"""The route of the page on which an agent reads its own refusals, and the cluster of that page.

Envoy adds a header with the agent's address. The recorder serves the page (go/internal/page).
"""

THROUGH_PATHS = "https-rules"
"""The same for inspected requests."""

HOST_NAME = ("(?:[A-Za-z0-9_-]{1,63}[.])*[A-Za-z0-9_-]{1,63}", "[!-~]{1,253}")
"""The two expressions that every host name matches (RFC 1035, section 2.3.4, and the underscore).

Envoy compares bytes, but its resolver knows escapes: a name with a backslash would be matched as it is, and
resolved as another name.
"""

STATUS = "HttpResponseStatusCodeMatchInput"
"""A matcher's input with the status of a response."""


def duration(seconds: float) -> str:
    """Return a duration as Envoy prints it, to the millisecond."""
    return f"{seconds:.3f}".removesuffix(".000") + "s"


def extension(kind: str, name: str = "", **config: Any) -> Json:  # noqa: ANN401 - JSON
    """Return an extension of Envoy with its configuration. The name usually follows from the kind."""
    return typed(name or f"envoy.{kind.partition('.v3.')[0]}", f"{TYPES}.extensions.{kind}", **config)


def listener(name: str, statistics: str, **fields: object) -> Json:
    """Return a listener."""
    return {"@type": f"{TYPES}.config.listener.v3.Listener", "name": name, "stat_prefix": statistics, **fields}


def socket(address: str, port: int) -> Json:
    """Return the address of a socket."""
    return {"socket_address": {"address": address, "port_value": port}}


def source(address: str) -> Json:
    """Return the fields of a cluster that connects from one of our addresses."""
    return {"upstream_bind_config": {"source_address": {"address": address, "port_value": 0}}}


def endpoint(cluster: str, address: Json, **state: str) -> Json:
    """Return the fields of a cluster with one address."""
    only = {"endpoint": {"address": address}, **state}
    return {"load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [only]}]}}


def http_options(**options: object) -> Json:
    """Return the fields of a cluster for HTTP with these options."""
    kind = "extensions.upstreams.http.v3.HttpProtocolOptions"
    return {"typed_extension_protocol_options": {f"envoy.{kind}": {"@type": f"{TYPES}.{kind}", **options}}}


def share(key: str, per_million: int) -> Json:
    """Return the access log filter that lets a share pass. The runtime can set its numerator, but no fraction."""
    share = {"numerator": per_million, "denominator": "MILLION"}
    return {"runtime_filter": {"runtime_key": key, "percent_sampled": share, "use_independent_randomness": True}}


def stdout(**log_format: object) -> Json:
    """Return an access log on standard output."""
    kind = "access_loggers.stream.v3.StdoutAccessLog"
    return extension(kind, "envoy.access_loggers.stdout", log_format=log_format)


def state(key: str, text: str, *formatters: Json, **fields: str) -> Json:
    """Return the configuration that sets a filter state to a text, for later filters."""
    further = {"formatters": list(formatters)} if formatters else {}
    source = {"text_format_source": {"inline_string": text}, **further}
    return {"object_key": key, "format_string": source, **fields}


def passed_on(key: str, text: str, *formatters: Json, **fields: str) -> Json:
    """Return the configuration that sets a filter state, also for the internal listener."""
    return state(key, text, *formatters, shared_with_upstream="ONCE", **fields)


def config_source(path: str) -> Json:
    """Return the source of a dynamic file below `hot/`, which Envoy reads again when it is moved."""
    file, watched = f"{container.VOLUME}/{container.HOT}{path}", {"path": watched_folder(path)}
    return {"resource_api_version": "V3", "path_config_source": {"path": file, "watched_directory": watched}}


def cel_formatter() -> Json:
    """Return the formatter for `%CEL(...)%`, with functions for strings."""
    return extension("formatter.cel.v3.Cel", cel_config={"enable_string_functions": True})


def replacing(*pages: Json) -> Json:
    """Return a route's configuration that replaces some of the host's responses by these pages (`page`)."""
    return {
        "@type": f"{TYPES}.extensions.filters.http.custom_response.v3.CustomResponse",
        "custom_response_matcher": {"matcher_list": {"matchers": list(pages)}},
    }


def page(name: str, compared: str, matched: Json, details: str, text: str, **of_input: str) -> Json:
    """Return the replacement of responses with a matching status or header by a text, with the status 502.

    `compared` is the type of the matcher's input, and `details` are the response code details.
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
