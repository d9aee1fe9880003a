"""What Envoy writes down of every refusal: a line of JSON on standard output, within 100 ms.

How many lines an agent may cause is decided by `fwctl record`, which reads them. What Envoy spends on lines is
bounded by how many connections and requests it takes of an agent in a second.

An agent chooses names and paths, so they are cut, and escaped as JSON strings: no line can be forged. What is
forwarded is only counted (`usage`); with telemetry, a collector gets both (`telemetry`). Expressions are CEL over
Envoy's attributes; Envoy writes `null` for what is absent.
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
"""The filter state with the route of a request in TLS that is looked into."""

_PASSED = {"method": messages.METHOD, "path": "clawker_fw.path", "rule": ROUTE}
"""The filter states with what a line about a request has that only the internal listener can write."""


_OF_ABSOLUTE = {"path": f"%FILTER_STATE({_PASSED['path']}:PLAIN)%"}
"""The path as the agent wrote it, because the upstream proxy gets a URL."""


def passed(*names: str) -> list[Json]:
    """Return these filter states, or some of them."""
    attributes = {**_HTTP, "rule": "%ROUTE_NAME%"}
    return [passed_on(_PASSED[name], attributes[name], factory_key="envoy.string") for name in names or _PASSED]


_SERVER_NAME = Attribute("connection.requested_server_name")
_LIKE_A_HOST = "^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$"
"""Only for the record: CEL takes no expression as large as the one by which names are refused."""

_CHAIN = Attribute("xds.filter_chain_name")
_CODE = Attribute("response.code")
_FLAGS = Attribute("response.flags")
_HOST = Attribute("upstream.address")
_ROUTE = Attribute("xds.route_name")

_DETAILS = Attribute("response.code_details")
BAD_NAME = _DETAILS.is_set() & _DETAILS.starts_with("rbac")
"""Of a request whose Host is no host name."""

DENIED_ROUTE = _ROUTE.is_set() & _ROUTE.equals(messages.DENIED_HTTP)
"""Of a request that a rule denies within what another one allows."""

PAGE_ROUTE = _ROUTE.is_set() & _ROUTE.equals(messages.TO_PAGE)
_FAILURE = Attribute("upstream.transport_failure_reason")  # with spaces, where the log has underscores
_TOO_MUCH = any_of(_DETAILS.contains(word) for word in ("too_large", "overflow", "overload"))
_BEFORE_RESPONSE, _NOT_CONNECTED = "upstream_reset_before_response_started{", "remote_connection_failure"
_ENDED = any_of(_DETAILS.starts_with(_BEFORE_RESPONSE + why) for why in ("connection_termination", _NOT_CONNECTED))
"""A connection through the internal listener has ended: because of where it leads, or the origin has ended it."""

_TLS_FAILED = _FAILURE.is_set() & _FAILURE.contains("TLS_error") & ~_FAILURE.contains("system library")
"""Of a request that is not sent because a host has not proved its name, or does not speak TLS."""

HOST_NOT_TRUSTED = _FAILURE.is_set() & _FAILURE.contains("CERTIFICATE_VERIFY_FAILED")
"""What BoringSSL says of a host whose certificate does not prove its name to Envoy."""

_REUSED = Attribute(f"upstream_filter_state['{REQUEST}']").differs_from(Attribute(f"filter_state['{REQUEST}']"))
"""Of a request for which a connection was used again: the internal listener can't tell which one had no answer."""

_SENT_ONCE = Attribute("request.method").is_in(messages.REPEATABLE) & Attribute(
    "upstream.request_attempt_count"
).less_than(2, unsigned=True)
"""Of a request that could have been sent again, but was not, as its content is not kept."""

_METHOD = Call("string", (Attribute(f"filter_state['{messages.METHOD}']"),))
_SENT_AGAIN = Attribute("destination.address").ends_with(f"/{messages.SENT_AGAIN}")
_LAST_ATTEMPT = ~_METHOD.is_in(messages.REPEATABLE) | _SENT_AGAIN
"""Of a connection whose request is not sent again on another one, so that a request has one record."""

_VIOLATION = ~_CODE.is_set() | _CODE.equals(0)
"""Of a request that violates HTTP/2: Envoy ends its connection without a response."""

BY_ROUTE = "direct_response"
"""What Envoy says of what a route refuses."""

NO_RULE = "refused"
"""The route of requests in TLS that is looked into, for which there is no rule on this port."""

NO_WAY = "cluster_not_found"
"""What Envoy says of a request for a WebSocket that is allowed, but not as one (`inspected`)."""

_UNAUTHORIZED = 401
"""What a host answers that does not accept a credential (RFC 9110, section 15.5.2)."""

_NOT_IMPLEMENTED = 501
"""What Envoy itself answers to a request in chunks of a kind that it does not know."""

_BAD_REQUEST = _VIOLATION | _CODE.less_than(500) | _CODE.equals(_NOT_IMPLEMENTED)

_AGENT_FAILURE = Attribute("connection.transport_failure_reason")
_ALERTS = "_ALERT_([A-Z_]*CERTIFICATE|UNKNOWN_CA)|BAD_PACKET_LENGTH"
"""What BoringSSL says of an alert about a certificate (RFC 8446, section 6.2). OpenSSL's clients send theirs in
TLS 1.3 unencrypted, and so too short for what is expected."""

_NOT_TRUSTED = _CHAIN.equals(chains.INSPECTED) & _AGENT_FAILURE.is_set() & _AGENT_FAILURE.matches(_ALERTS)
"""Of TLS that is looked into, which the agent has ended because of Envoy's certificate. One that ends it without
an alert can't be told from one that asks for nothing."""

_CROWDED = _FLAGS.equals(0) & ~_HOST.is_set() & _CHAIN.differs_from("")
"""A connection that its rule forwards, and that ended before it led anywhere: there was no room for its lookup."""

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
"""Decided first: otherwise, a proxy that can't be reached would read as the host's private address."""

_FORWARDED = Attribute("upstream.local_address").is_set()
"""Of a connection that leads somewhere: Envoy has connected, and failed neither before nor at that."""

_UNANSWERED = _FORWARDED & Attribute("response.size").equals(0)
"""Of a connection that leads to an origin, which has sent nothing. Which end has ended it, only a line can say:
`fwctl record` leaves out those that the agent has given up (`ended`)."""

_FORWARDED_REQUEST = _DETAILS.is_set() & _DETAILS.equals("via_upstream")


def _upstream(serving: Serving) -> Mapping[str, str]:
    """Return the fields about where a connection leads, with the headers of the upstream proxy's answer."""
    headers = {"proxy": f"%FILTER_STATE({upstream.ANSWER}:TYPED)%"}
    return {**_UPSTREAM, **(headers if serving.policy.rules.proxy else {})}


def _leads_to(cluster: str) -> Expression:
    name = Attribute("xds.cluster_name")
    return name.is_set() & name.equals(cluster)


def _of_proxy(serving: Serving, *, absolute: bool = False) -> Sequence[tuple[Expression, Expression]]:
    """Return the case of a connection that failed at the upstream proxy, or before it.

    Requests in `absolute` form get all their answers from the proxy.
    """
    leads_there = _leads_to(upstream.CLUSTER)
    failed = leads_there & (_FLAGS.has_bit(_CONNECTION_FAILURE) | ~_HOST.is_set())
    return [(leads_there if absolute else failed, _PROXY_REASON)] if serving.policy.rules.proxy else []


def _is_own_check(name: Expression, checkers: Sequence[IPv4Address]) -> Expression:
    """Whether CoreDNS checks that agents are refused. An agent may use its name as well."""
    source = Attribute("source.address")
    from_checker = any_of(source.starts_with(f"{checker}:") for checker in checkers)
    return name.equals(container.REFUSED_NAME) & from_checker


def of_listener(serving: Serving) -> list[Json]:
    """Return the access log of a listener: connections that lead nowhere, because of us or because of where to."""
    own_check = _is_own_check(_SERVER_NAME, serving.addresses.checkers)
    refused = _CHAIN.equals(chains.REFUSED) & ~own_check
    denied = _CHAIN.equals(chains.DENIED)
    named = _SERVER_NAME.differs_from("")
    failed = _all(of_flags("UF", "UH", "URX", "DF", "UO"), passing(named))
    milliseconds = {"default_value": 950 * bounds.HELLO_SECONDS, "runtime_key": "refusals.hello"}
    no_chain = _CHAIN.equals("")
    never_said = _all({"duration_filter": {"comparison": {"op": "GE", "value": milliseconds}}}, passing(no_chain))
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
    # Of TLS that is looked into, requests have records of their own.
    forwards = _CHAIN.differs_from(chains.REFUSED) & _CHAIN.differs_from(chains.INSPECTED)
    # One expression that ends early spares what is forwarded most of the time that several take.
    nowhere = passing(~_HOST.is_set() & (denied | refused | _CROWDED & forwards & named | _NOT_TRUSTED))
    any_of_them = _any(nowhere, failed, never_said)
    forwarded = passing(_FORWARDED & named)
    fields = {**_FIELDS, **_upstream(serving), **_TLS, "reason": _formatted(reason)}
    logs = _logs(any_of_them, forwarded, fields, serving.reporting)
    return [*logs, usage.of_listener(forwarded)]


def of_observed() -> Json:
    """Return the fields with which a TCP proxy logs each connection without a rule, once its host is reached."""
    connected = {"log_type_filter": {"types": ["TcpUpstreamConnected"]}}
    fields = {**_FIELDS, **_UPSTREAM, **_TLS, "reason": Reason.OBSERVED.value}
    return {
        "access_log": [{**stdout(json_format=fields), "filter": connected}],
        "access_log_options": {"flush_access_log_on_connected": True},
    }


def of_opaque(name: str, serving: Serving) -> list[Json]:
    """Return the access log of a listener that stands for one name: connections that lead nowhere."""
    failed = of_flags("UF", "UH", "URX", "DF", "UO")
    reason = _first(*_of_proxy(serving), otherwise=_UPSTREAM_REASON)
    fields = {**_FIELDS, **_upstream(serving), "protocol": "tcp", "name": name, "reason": _formatted(reason)}
    any_of_them = _any(failed, passing(_FLAGS.equals(0) & ~_HOST.is_set()))
    # Records of all names come from one log: Envoy has a buffer and a timer for each that differs.
    further = {"name": f"%FILTER_STATE({NAME}:PLAIN)%"}
    return _logs(any_of_them, passing(_FORWARDED), fields, serving.reporting, further)


SESSION_TOLD_AFTER = 0.5
"""Seconds after which a session of UDP is looked at. It has no other moment: most never end by themselves."""

NOWHERE = ("255.255.255.255", 1)
"""Where the datagrams of a name without an address lead: the kernel refuses to connect there."""


def of_datagrams(name: str, reporting: Reporting | None) -> list[Json]:
    """Return the access log of a listener for UDP that stands for one name: sessions that lead nowhere.

    One that could not connect is written down when it is looked at first, also where its name has no address. One
    for which there is no room ends at once.
    """
    milliseconds = {"default_value": round(1800 * SESSION_TOLD_AFTER), "runtime_key": "refusals.session"}
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
    """Return the filter that passes what has one of Envoy's response flags."""
    return {"response_flag_filter": {"flags": list(flags)}}


def of_status(status: int) -> Json:
    """Return the filter that passes responses with a status."""
    return {"status_code_filter": {"comparison": {"value": {"default_value": status, "runtime_key": "refused"}}}}


def of_details(details: str) -> Json:
    """Return the filter that passes what Envoy has ended for a reason of its own."""
    return passing(_DETAILS.is_set() & _DETAILS.equals(details))


def of_route(beginning: str) -> Json:
    """Return the filter that passes what a route with a name that begins so has answered itself."""
    by_route = _DETAILS.is_set() & _DETAILS.equals(BY_ROUTE)
    return passing(by_route & _ROUTE.is_set() & _ROUTE.starts_with(beginning))


def to_nowhere(serving: Serving, *, inspected: bool = False) -> list[Json]:
    """Return the access log of an internal listener: requests that their rule forwards, but lead nowhere.

    They are those of HTTP, or those in TLS that is `inspected`.
    """
    known = {name: f"%FILTER_STATE({key}:PLAIN)%" for name, key in _PASSED.items()}
    protocol_fields = {"protocol": "https", **known} if inspected else {"protocol": "http"}
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
    """Return the access log of plain HTTP: every request that Envoy has answered itself, or could not answer.

    What the internal listener has written down already is not repeated. What goes to the page
    about refusals is neither refused nor traffic.
    """
    own = _DETAILS.is_set() & _DETAILS.differs_from("via_upstream") & (~_ENDED | _REUSED | _SENT_ONCE)
    proxy, broken = serving.policy.rules.proxy, _DETAILS.matches("protocol_error|stream_idle_timeout")
    host = Attribute("request.host")
    not_ours = ~(host.is_set() & _is_own_check(host, serving.addresses.checkers))
    reason = _first(
        (DENIED_ROUTE, Reason.DENIED),
        *((_DETAILS.equals(reason), reason) for reason in upstream.page_reasons(proxy)),
        *([(_leads_to(upstream.ABSOLUTE) & broken, Reason.PROXY_UNREACHABLE)] if proxy else []),
        *([(_DETAILS.equals(injected.MISSING), Reason.NO_SECRET)] if proxy else []),
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
    """Return the access log of requests in TLS that is looked into: those that are refused, or not answered.

    What the internal listener has written down already is not repeated.
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
    fields = {
        **_FIELDS,
        **_UPSTREAM,
        **_HTTP,
        "protocol": "https",
        "rule": "%ROUTE_NAME%",
        "reason": _formatted(reason),
    }
    return _logs(_of_requests(by_us | by_host), passing(_FORWARDED_REQUEST), fields, reporting)


def _of_requests(ours: Expression) -> Json:
    """Return the filter that passes failed requests for which an expression is true, and violations of HTTP/2."""
    violation = of_flags("DPE"), passing(_VIOLATION & ~_HOST.is_set())
    # Comparing a number first spares what is forwarded an expression, which takes longer.
    failed = {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "refusals.failed"}}}
    return _any(_all({"status_code_filter": failed}, passing(ours)), _all(*violation))


def _logs(
    refused: Json,
    allowed: Json | None,
    fields: Mapping[str, str],
    reporting: Reporting | None,
    further: Mapping[str, str] | None = None,
    *,
    unanswered: Json | None = None,
) -> list[Json]:
    """Return the log of what is refused, and those for a collector, whose records have what is `told` instead.

    What had no answer is only written: who has ended it is told apart by whoever reads the lines.
    """
    any_of_them = _any(refused, unanswered) if unanswered else refused
    written = stdout(json_format=dict(fields), formatters=[extension("formatter.cel.v3.Cel")])
    logs = [{**written, "filter": any_of_them}]
    if reporting is None:
        return logs
    fields = {**fields, **(further or {})}
    forwarded = [reporting.allowed(allowed, fields)] if allowed else []
    return [*logs, reporting.log(refused, fields), *forwarded]


def _any(*filters: Json) -> Json:
    return {"or_filter": {"filters": list(filters)}}


def _all(*filters: Json) -> Json:
    return {"and_filter": {"filters": list(filters)}}


def passing(expression: Expression) -> Json:
    """Return a filter that passes what an expression is true for; where it can't be evaluated, nothing passes."""
    kind = "access_loggers.filters.cel.v3.ExpressionFilter"
    # Filter states are octets to CEL, which it takes for text only when it is told to.
    strings = {"cel_config": {"enable_string_conversion": True}}
    name = "envoy.access_loggers.extension_filters.cel"
    return {"extension_filter": extension(kind, name, expression=printed(expression), **strings)}


def _formatted(expression: Expression) -> str:
    return f"%CEL({printed(expression)})%"
