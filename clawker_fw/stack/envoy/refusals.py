"""Envoy's access logs of refusals: a line of JSON per refusal on standard output, within 100 ms.

`fwctl record` reads the lines and limits how many an agent may cause. The limits on an agent's connections and
requests per second bound Envoy's own work.

Agents choose names and paths, so these are cut, and escaped as JSON strings: no line can be forged. Forwarded
connections are only counted (`usage`); with telemetry, a collector gets both (`telemetry`). Envoy writes `null`
for absent attributes.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack import container
from clawker_fw.stack.envoy import bounds, chains, injected, messages, upstream, usage
from clawker_fw.stack.envoy.cel import Attribute, Binary, Call, Choice, Expression, Literal, any_of, printed
from clawker_fw.stack.envoy.messages import ASKED, PORT, REQUEST, SOURCE, Json, extension, passed_on, stdout
from clawker_fw.stack.envoy.telemetry import CLIENT, NAME, Reporting, Serving

_LONGEST, _LONGEST_METHOD = 255, 32


def _first(*cases: tuple[Expression, Reason | Expression], otherwise: Reason | Expression) -> Expression:
    """Return the outcome of the first case whose condition is true."""
    expression = _outcome(otherwise)
    for condition, outcome in reversed(cases):
        expression = Choice(condition, _outcome(outcome), expression)
    return expression


def _outcome(reason: Reason | Expression) -> Expression:
    return Literal(reason.value) if isinstance(reason, Reason) else reason


_FIELDS = {
    "time": "%START_TIME%",
    "source": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "port": "%DOWNSTREAM_LOCAL_PORT%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
}
_UPSTREAM = {"upstream": "%UPSTREAM_HOST%", "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%"}

_TLS = {"protocol": "tls", "name": "%REQUESTED_SERVER_NAME%"}
_HTTP = {
    "protocol": "http",
    "name": f"%REQ(:AUTHORITY):{_LONGEST}%",
    "method": f"%REQ(:METHOD):{_LONGEST_METHOD}%",
    "path": f"%PATH(NQ:PATH):{_LONGEST}%",  # without the query, which may hold secrets
}

ROUTE = "clawker_fw.route"
"""The filter state with the route of an inspected request."""

_PASSED = {"method": messages.METHOD, "path": "clawker_fw.path", "rule": ROUTE}
"""The filter states with the fields of a request that only the internal listener logs."""

_OF_ABSOLUTE = {"path": f"%FILTER_STATE({_PASSED['path']}:PLAIN)%"}
"""The path as the agent wrote it, because the upstream proxy gets a URL."""


def passed(*names: str) -> list[Json]:
    """Return these filter states, or some of them."""
    attributes = {**_HTTP, "rule": "%ROUTE_NAME%"}
    return [passed_on(_PASSED[name], attributes[name], factory_key="envoy.string") for name in names or _PASSED]


_SERVER_NAME = Attribute("connection.requested_server_name")
_LIKE_A_HOST = "^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$"
"""Only for the reason: CEL rejects regular expressions as large as the one that decides (`messages.HOST_NAME`)."""

_CHAIN = Attribute("xds.filter_chain_name")
_CODE = Attribute("response.code")
_FLAGS = Attribute("response.flags")
_HOST = Attribute("upstream.address")
_ROUTE = Attribute("xds.route_name")

_DETAILS = Attribute("response.code_details")
BAD_NAME = _DETAILS.is_set() & _DETAILS.starts_with("rbac")
"""The request's Host is not a host name."""

DENIED_ROUTE = _ROUTE.is_set() & _ROUTE.equals(messages.DENIED_HTTP)
"""A rule denies a part of what another rule allows."""

PAGE_ROUTE = _ROUTE.is_set() & _ROUTE.equals(messages.TO_PAGE)
_FAILURE = Attribute("upstream.transport_failure_reason")  # with spaces, where the log has underscores
_TOO_MUCH = any_of(_DETAILS.contains(word) for word in ("too_large", "overflow", "overload"))
_BEFORE_RESPONSE, _NOT_CONNECTED = "upstream_reset_before_response_started{", "remote_connection_failure"
_ENDED = any_of(_DETAILS.starts_with(_BEFORE_RESPONSE + why) for why in ("connection_termination", _NOT_CONNECTED))
"""A connection through the internal listener has ended, because of its destination or by the origin."""

_TLS_FAILED = _FAILURE.is_set() & _FAILURE.contains("TLS_error") & ~_FAILURE.contains("system library")
"""The request was not sent, because the host did not prove its name or does not speak TLS."""

HOST_NOT_TRUSTED = _FAILURE.is_set() & _FAILURE.contains("CERTIFICATE_VERIFY_FAILED")
"""BoringSSL did not accept the host's certificate for its name."""

_REUSED = Attribute(f"upstream_filter_state['{REQUEST}']").differs_from(Attribute(f"filter_state['{REQUEST}']"))
"""The request used an existing connection, for which the internal listener can't log single requests."""

_ATTEMPTS = Attribute("upstream.request_attempt_count")
_SENT_ONCE = Attribute("request.method").is_in(messages.REPEATABLE) & _ATTEMPTS.less_than(2, unsigned=True)
"""The request could have been sent again, but was not, because Envoy does not keep its content."""

_METHOD = Call("string", (Attribute(f"filter_state['{messages.METHOD}']"),))
_SENT_AGAIN = Attribute("destination.address").ends_with(f"/{messages.SENT_AGAIN}")
_LAST_ATTEMPT = ~_METHOD.is_in(messages.REPEATABLE) | _SENT_AGAIN
"""The request is not sent again on another connection, so this is its only record."""

_VIOLATION = ~_CODE.is_set() | _CODE.equals(0)
"""The request violates HTTP/2, so Envoy ended its connection without a response."""

BY_ROUTE = "direct_response"
"""Envoy's response code details of a response that comes from a route."""

NO_RULE = "refused"
"""The route of inspected requests without a rule on this port."""

NO_WAY = "cluster_not_found"
"""Envoy's response code details if only the upgrade to a WebSocket is not allowed (`tls_interception`)."""

_UNAUTHORIZED = 401
"""The status of a host that does not accept a credential (RFC 9110, section 15.5.2)."""

_NOT_IMPLEMENTED = 501
"""Envoy's own status for an unknown transfer coding."""

_BAD_REQUEST = _VIOLATION | _CODE.less_than(500) | _CODE.equals(_NOT_IMPLEMENTED)

_AGENT_FAILURE = Attribute("connection.transport_failure_reason")
_ALERTS = "_ALERT_([A-Z_]*CERTIFICATE|UNKNOWN_CA)|BAD_PACKET_LENGTH"
"""BoringSSL's words for an alert about a certificate (RFC 8446, section 6.2). In TLS 1.3, OpenSSL's clients send
it unencrypted, so it is shorter than BoringSSL expects."""

_NOT_TRUSTED = _CHAIN.equals(chains.INSPECTED) & _AGENT_FAILURE.is_set() & _AGENT_FAILURE.matches(_ALERTS)
"""The agent ended an inspected connection because it does not trust Envoy's certificate. Without an alert, this
looks the same as a connection without a request."""

_CROWDED = _FLAGS.equals(0) & ~_HOST.is_set() & _CHAIN.differs_from("")
"""A forwarded connection ended before it had a destination, because the limit on lookups was reached."""

_CONNECTION_FAILURE, _OVERFLOW = 5, 7
"""Bits of the response flags: upstream connection failure, and upstream overflow."""

_UPSTREAM_REASON = _first(
    (_FAILURE.is_set() & _FAILURE.contains("immediate connect error"), Reason.PRIVATE_ADDRESS),
    (_FLAGS.equals(0) | _FLAGS.has_bit(_OVERFLOW), Reason.LIMIT),
    (_HOST.is_set(), Reason.UNREACHABLE),
    otherwise=Reason.NO_ADDRESS,
)

_PROXY_REASON = _first(
    (_FAILURE.is_set() & _FAILURE.contains("tunnel_response:403"), Reason.PROXY_REFUSED),
    (_FAILURE.is_set() & _FAILURE.contains("tunnel_response:407"), Reason.PROXY_AUTH),
    (_FAILURE.is_set() & _FAILURE.contains("tunnel_response"), Reason.PROXY_FAILED),
    (_HOST.is_set(), Reason.PROXY_UNREACHABLE),
    otherwise=Reason.PROXY_NO_ADDRESS,
)
"""These cases come first: otherwise an unreachable proxy would look like a private address of the host."""

_FORWARDED = Attribute("upstream.local_address").is_set()
"""Envoy has connected to the destination."""

_UNANSWERED = _FORWARDED & Attribute("response.size").equals(0)
"""The origin has sent nothing. Only the log line says which side ended the connection (`ended`): `fwctl record`
leaves out those that the agent ended."""

_FORWARDED_REQUEST = _DETAILS.is_set() & _DETAILS.equals("via_upstream")


def _upstream(serving: Serving) -> Mapping[str, str]:
    """Return the fields about the destination, with the headers of the upstream proxy's answer."""
    headers = {"proxy": f"%FILTER_STATE({upstream.ANSWER}:TYPED)%"}
    return {**_UPSTREAM, **(headers if serving.policy.rules.proxy else {})}


def _leads_to(cluster: str) -> Expression:
    name = Attribute("xds.cluster_name")
    return name.is_set() & name.equals(cluster)


def _of_proxy(serving: Serving, *, absolute: bool = False) -> Sequence[tuple[Expression, Expression]]:
    """Return the case of a connection that failed on its way through the upstream proxy.

    Requests in `absolute` form get all their answers from the proxy.
    """
    leads_there = _leads_to(upstream.CLUSTER)
    failed = leads_there & (_FLAGS.has_bit(_CONNECTION_FAILURE) | ~_HOST.is_set())
    return [(leads_there if absolute else failed, _PROXY_REASON)] if serving.policy.rules.proxy else []


def _is_own_check(name: Expression, checkers: Sequence[IPv4Address]) -> Expression:
    """Whether this is CoreDNS checking that agents are refused. Agents may use the name as well."""
    source = Attribute("source.address")
    from_checker = any_of(source.starts_with(f"{checker}:") for checker in checkers)
    return name.equals(container.REFUSED_NAME) & from_checker


def of_listener(serving: Serving) -> list[Json]:
    """Return the access log of a listener: connections that were refused, or whose destination failed."""
    own_check = _is_own_check(_SERVER_NAME, serving.addresses.checkers)
    refused = _CHAIN.equals(chains.REFUSED) & ~own_check
    denied = _CHAIN.equals(chains.DENIED)
    named = _SERVER_NAME.differs_from("")
    failed = _all(of_flags("UF", "UH", "URX", "DF", "UO"), passing(named))
    milliseconds = {"default_value": 950 * bounds.HELLO_SECONDS, "runtime_key": "refusals.hello"}
    no_chain = _CHAIN.equals("")
    silent = _all({"duration_filter": {"comparison": {"op": "GE", "value": milliseconds}}}, passing(no_chain))
    reason = _first(
        (denied, Reason.DENIED),
        (_CHAIN.equals(chains.INSPECTED), Reason.NOT_TRUSTED),
        (no_chain & ~_DETAILS.is_set(), Reason.TIMEOUT),
        *_of_proxy(serving),
        (_CHAIN.differs_from("") & _CHAIN.differs_from(chains.REFUSED), _UPSTREAM_REASON),
        (~_SERVER_NAME.is_set() | _SERVER_NAME.equals(""), Reason.NO_SERVER_NAME),
        (
            ~_SERVER_NAME.matches(_LIKE_A_HOST) | Binary(">", Call("size", (_SERVER_NAME,)), Literal(253)),
            Reason.BAD_NAME,
        ),
        otherwise=Reason.NO_RULE,
    )
    # Inspected requests are logged one by one.
    forwards = _CHAIN.differs_from(chains.REFUSED) & _CHAIN.differs_from(chains.INSPECTED)
    # Forwarded connections fail the first condition, so they cost almost nothing.
    nowhere = passing(~_HOST.is_set() & (denied | refused | _CROWDED & forwards & named | _NOT_TRUSTED))
    forwarded = passing(_FORWARDED & named)
    fields = {**_FIELDS, **_upstream(serving), **_TLS, "reason": _formatted(reason)}
    logs = _logs(_any(nowhere, failed, silent), forwarded, fields, serving.reporting)
    return [*logs, usage.of_listener(forwarded)]


def of_observed() -> Json:
    """Return the fields of a TCP proxy that logs connections without a rule once the host is reached."""
    connected = {"log_type_filter": {"types": ["TcpUpstreamConnected"]}}
    fields = {**_FIELDS, **_UPSTREAM, **_TLS, "reason": Reason.OBSERVED.value}
    return {
        "access_log": [{**stdout(json_format=fields), "filter": connected}],
        "access_log_options": {"flush_access_log_on_connected": True},
    }


def of_opaque(name: str, serving: Serving) -> list[Json]:
    """Return the access log of a virtual address's listener: connections that failed."""
    failed = of_flags("UF", "UH", "URX", "DF", "UO")
    reason = _first(*_of_proxy(serving), otherwise=_UPSTREAM_REASON)
    fields = {**_FIELDS, **_upstream(serving), "protocol": "tcp", "name": name, "reason": _formatted(reason)}
    any_of_them = _any(failed, passing(_FLAGS.equals(0) & ~_HOST.is_set()))
    # All names share one log, because Envoy has a buffer and a timer for every different one.
    further = {"name": f"%FILTER_STATE({NAME}:PLAIN)%"}
    return _logs(any_of_them, passing(_FORWARDED), fields, serving.reporting, further)


SESSION_LOGGED_AFTER = 0.5
"""After how many seconds a UDP session is logged if it failed. Most sessions have no end that Envoy could log."""

NOWHERE = ("255.255.255.255", 1)
"""The destination for names without an address: the kernel refuses to connect to it."""


def of_datagrams(name: str, reporting: Reporting | None) -> list[Json]:
    """Return the access log of a virtual address's UDP listener: sessions that failed.

    A session that could not connect is logged after `SESSION_LOGGED_AFTER`, also if its name has no address. A
    session beyond the limit ends at once.
    """
    milliseconds = {"default_value": round(1800 * SESSION_LOGGED_AFTER), "runtime_key": "refusals.session"}
    looked_at_first = _all(
        {"log_type_filter": {"types": ["UdpPeriodic"]}},
        {"duration_filter": {"comparison": {"op": "LE", "value": milliseconds}}},
        passing(_HOST.is_set() & ~_FORWARDED),
    )
    no_room = of_flags("UO")
    reason = _first(
        (~_HOST.is_set(), Reason.LIMIT),
        (_HOST.equals("{}:{}".format(*NOWHERE)), Reason.NO_ADDRESS),
        otherwise=Reason.PRIVATE_ADDRESS,
    )
    fields = {**_FIELDS, **_UPSTREAM, "protocol": "udp", "name": name, "reason": _formatted(reason)}
    ended = _all({"log_type_filter": {"types": ["UdpSessionEnd"]}}, passing(_FORWARDED))
    further = {"name": "%UPSTREAM_CLUSTER%", "rule": "%UPSTREAM_CLUSTER_RAW%"}
    return _logs(_any(looked_at_first, no_room), ended, fields, reporting, further)


def of_flags(*flags: str) -> Json:
    """Return a filter for these response flags of Envoy."""
    return {"response_flag_filter": {"flags": list(flags)}}


def of_status(status: int) -> Json:
    """Return a filter for responses with a status."""
    return {"status_code_filter": {"comparison": {"value": {"default_value": status, "runtime_key": "refused"}}}}


def of_details(details: str) -> Json:
    """Return a filter for Envoy's response code details."""
    return passing(_DETAILS.is_set() & _DETAILS.equals(details))


def of_route(beginning: str) -> Json:
    """Return a filter for responses that come from a route whose name begins so."""
    by_route = _DETAILS.is_set() & _DETAILS.equals(BY_ROUTE)
    return passing(by_route & _ROUTE.is_set() & _ROUTE.starts_with(beginning))


def to_nowhere(serving: Serving, *, inspected: bool = False) -> list[Json]:
    """Return the access log of an internal listener: forwarded requests whose destination failed.

    They are plain HTTP, or `inspected`.
    """
    passed_on_fields = {name: f"%FILTER_STATE({key}:PLAIN)%" for name, key in _PASSED.items()}
    protocol_fields = {"protocol": "https", **passed_on_fields} if inspected else {"protocol": "http"}
    failed = of_flags("NR", "UF", "UH", "URX", "DF", "UO")
    reason = _first(
        (_CHAIN.equals(""), Reason.NO_RULE),
        *_of_proxy(serving, absolute=not inspected),
        (_FORWARDED, Reason.UNREACHABLE),
        otherwise=_UPSTREAM_REASON,
    )
    fields = {
        **_FIELDS,
        **_upstream(serving),
        **protocol_fields,
        "source": f"%FILTER_STATE({SOURCE}:PLAIN)%",
        "port": f"%FILTER_STATE({PORT}:TYPED)%",
        "name": f"%FILTER_STATE({ASKED}:PLAIN)%",
        "reason": _formatted(reason),
        "ended": "%DOWNSTREAM_DETECTED_CLOSE_TYPE%",
    }
    any_of_them = _all(_any(failed, passing(_CROWDED)), passing(_LAST_ATTEMPT))
    further = {"client": f"%FILTER_STATE({CLIENT}:PLAIN)%"}
    unanswered = passing(_UNANSWERED & _LAST_ATTEMPT)
    logs = _logs(any_of_them, None, fields, serving.reporting, further, unanswered=unanswered)
    return [*logs, usage.of_requests(protocol_fields["protocol"], passing(_FORWARDED))]


def of_http(serving: Serving) -> list[Json]:
    """Return the access log of plain HTTP: requests that Envoy answered itself, or could not answer.

    Requests that the internal listener has logged are not repeated. Requests for the page about refusals are
    neither refusals nor traffic.
    """
    own = _DETAILS.is_set() & _DETAILS.differs_from("via_upstream") & (~_ENDED | _REUSED | _SENT_ONCE)
    proxy, broken = serving.policy.rules.proxy, _DETAILS.matches("protocol_error|stream_idle_timeout")
    proxied = [
        *((_DETAILS.equals(reason), reason) for reason in upstream.PAGE_REASONS),
        (_leads_to(upstream.ABSOLUTE) & broken, Reason.PROXY_UNREACHABLE),
        (_DETAILS.equals(injected.MISSING), Reason.NO_SECRET),
    ]
    host = Attribute("request.host")
    not_ours = ~(host.is_set() & _is_own_check(host, serving.addresses.checkers))
    reason = _first(
        (DENIED_ROUTE, Reason.DENIED),
        *(proxied if proxy else []),
        (_DETAILS.equals(BY_ROUTE), Reason.NO_RULE),
        (_DETAILS.starts_with("rbac") | _DETAILS.contains("invalid_authority"), Reason.BAD_NAME),
        (_DETAILS.contains("timeout"), Reason.TIMEOUT),
        (_TOO_MUCH, Reason.LIMIT),
        (_BAD_REQUEST, Reason.BAD_REQUEST),
        otherwise=Reason.UNREACHABLE,
    )
    any_of_them = _of_requests(own & not_ours & ~PAGE_ROUTE)
    http = {**_HTTP, **(_OF_ABSOLUTE if proxy else {})}
    fields = {**_FIELDS, **http, "reason": _formatted(reason)}
    forwarded = passing(_FORWARDED_REQUEST & ~PAGE_ROUTE)
    observed = {**_FIELDS, **http, "reason": Reason.OBSERVED.value}
    passed = passing(_ROUTE.is_set() & _ROUTE.equals(messages.OBSERVED_HTTP) & _FORWARDED_REQUEST)
    logs = _logs(any_of_them, forwarded, fields, serving.reporting, {"rule": "%ROUTE_NAME%"})
    return [*logs, {**stdout(json_format=observed), "filter": passed}]


def of_inspected(reporting: Reporting | None) -> list[Json]:
    """Return the access log of inspected requests: those that were refused, or had no answer.

    Requests that the internal listener has logged are not repeated.
    """
    not_connected = _DETAILS.starts_with(_BEFORE_RESPONSE + _NOT_CONNECTED)
    repeated = not_connected & ~_TLS_FAILED & ~_SENT_ONCE
    by_us = _DETAILS.is_set() & _DETAILS.differs_from("via_upstream") & ~repeated
    injects = Literal(injected.METADATA).is_in(Attribute("xds.route_metadata.filter_metadata"))
    by_host = _CODE.equals(_UNAUTHORIZED) & injects
    bad = _CODE.equals(400) | _CODE.equals(421)
    by_route = _DETAILS.equals(BY_ROUTE)
    reason = _first(
        (by_route & _CODE.differs_from(403), Reason.BAD_REQUEST),
        (by_route & _ROUTE.equals(NO_RULE), Reason.NO_RULE),
        (by_route, Reason.PATH),
        (_DETAILS.equals(NO_WAY), Reason.NO_WEBSOCKET),
        (_DETAILS.equals(injected.MISSING), Reason.NO_SECRET),
        (_DETAILS.equals(injected.NOT_ACCEPTED) | _DETAILS.equals("via_upstream"), Reason.SECRET_REFUSED),
        (_DETAILS.starts_with("rbac") & bad, Reason.BAD_REQUEST),
        (_DETAILS.starts_with("rbac"), Reason.PATH),
        (_DETAILS.contains("timeout") & _CODE.equals(408), Reason.TIMEOUT),
        (_TOO_MUCH, Reason.LIMIT),
        (_BAD_REQUEST, Reason.BAD_REQUEST),
        (HOST_NOT_TRUSTED, Reason.HOST_NOT_TRUSTED),
        otherwise=Reason.UNREACHABLE,
    )
    https = {**_HTTP, "protocol": "https", "rule": "%ROUTE_NAME%"}
    fields = {**_FIELDS, **_UPSTREAM, **https, "reason": _formatted(reason)}
    return _logs(_of_requests(by_us | by_host), passing(_FORWARDED_REQUEST), fields, reporting)


def _of_requests(ours: Expression) -> Json:
    """Return a filter for failed requests for which an expression is true, and for violations of HTTP/2."""
    violation = _all(of_flags("DPE"), passing(_VIOLATION & ~_HOST.is_set()))
    # Comparing the status first costs less than an expression, and most requests end there.
    failed = {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "refusals.failed"}}}
    return _any(_all({"status_code_filter": failed}, passing(ours)), violation)


def _logs(
    refused: Json,
    allowed: Json | None,
    fields: Mapping[str, str],
    reporting: Reporting | None,
    further: Mapping[str, str] | None = None,
    *,
    unanswered: Json | None = None,
) -> list[Json]:
    """Return the log of refusals, and those for a collector, in which the `further` fields replace others.

    Requests that are `unanswered` are only logged: `fwctl record` finds out which side ended them.
    """
    written = stdout(json_format=dict(fields), formatters=[extension("formatter.cel.v3.Cel")])
    logs = [{**written, "filter": _any(refused, unanswered) if unanswered else refused}]
    if reporting:
        fields = {**fields, **(further or {})}
        logs.append(reporting.log(refused, fields))
        logs += [reporting.allowed(allowed, fields)] if allowed else []
    return logs


def _any(*filters: Json) -> Json:
    return {"or_filter": {"filters": list(filters)}}


def _all(*filters: Json) -> Json:
    return {"and_filter": {"filters": list(filters)}}


def passing(expression: Expression) -> Json:
    """Return a filter that passes if an expression is true. It does not pass if the expression has an error."""
    kind = "access_loggers.filters.cel.v3.ExpressionFilter"
    # Otherwise filter states would be bytes to CEL, which are never equal to texts.
    strings = {"cel_config": {"enable_string_conversion": True}}
    name = "envoy.access_loggers.extension_filters.cel"
    return {"extension_filter": extension(kind, name, expression=printed(expression), **strings)}


def _formatted(expression: Expression) -> str:
    return f"%CEL({printed(expression)})%"
