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
from clawker_fw.stack.envoy.messages import ASKED, PORT, REQUEST, SOURCE, Json, extension, passed_on, stdout
from clawker_fw.stack.envoy.telemetry import CLIENT, NAME, Reporting, Serving

_LONGEST, _LONGEST_METHOD = 255, 32

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


_REPEATABLE = [*messages.REPEATABLE]

_SERVER_NAME = "connection.requested_server_name"
_LIKE_A_HOST = "^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$"
"""Only for the record: CEL takes no expression as large as the one by which names are refused."""

_DETAILS = "response.code_details"
BAD_NAME = f"has({_DETAILS}) && {_DETAILS}.startsWith('rbac')"
"""Of a request whose Host is no host name."""

DENIED_ROUTE = f"has(xds.route_name) && xds.route_name == '{messages.DENIED_HTTP}'"
"""Of a request that a rule denies within what another one allows."""

PAGE_ROUTE = f"has(xds.route_name) && xds.route_name == '{messages.TO_PAGE}'"
_FAILURE = "upstream.transport_failure_reason"  # with spaces, where the log has underscores
_TOO_MUCH = ("too_large", "overflow", "overload")
_BEFORE_RESPONSE, _NOT_CONNECTED = "upstream_reset_before_response_started{", "remote_connection_failure"
_ENDED = ("connection_termination", _NOT_CONNECTED)
"""A connection through the internal listener has ended: because of where it leads, or the origin has ended it."""

_TLS_FAILED = f"(has({_FAILURE}) && {_FAILURE}.contains('TLS_error') && !{_FAILURE}.contains('system library'))"
"""Of a request that is not sent because a host has not proved its name, or does not speak TLS."""

HOST_NOT_TRUSTED = f"has({_FAILURE}) && {_FAILURE}.contains('CERTIFICATE_VERIFY_FAILED')"
"""What BoringSSL says of a host whose certificate does not prove its name to Envoy."""

_REUSED = f"upstream_filter_state['{REQUEST}'] != filter_state['{REQUEST}']"
"""Of a request for which a connection was used again: the internal listener can't tell which one had no answer."""

_SENT_ONCE = f"request.method in {_REPEATABLE} && upstream.request_attempt_count < 2u"
"""Of a request that could have been sent again, but was not, as its content is not kept."""

_SENT_AGAIN = f"destination.address.endsWith('/{messages.SENT_AGAIN}')"
_LAST_ATTEMPT = f"!(string(filter_state['{messages.METHOD}']) in {_REPEATABLE}) || {_SENT_AGAIN}"
"""Of a connection whose request is not sent again on another one, so that a request has one record."""

_VIOLATION = "!has(response.code) || response.code == 0"
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

_AGENT_FAILURE = "connection.transport_failure_reason"
_ALERTS = "_ALERT_([A-Z_]*CERTIFICATE|UNKNOWN_CA)|BAD_PACKET_LENGTH"
"""What BoringSSL says of an alert about a certificate (RFC 8446, section 6.2). OpenSSL's clients send theirs in
TLS 1.3 unencrypted, and so too short for what is expected."""

_NOT_TRUSTED = (
    f"xds.filter_chain_name == '{chains.INSPECTED}' && has({_AGENT_FAILURE})"
    f" && {_AGENT_FAILURE}.matches('{_ALERTS}')"
)
"""Of TLS that is looked into, which the agent has ended because of Envoy's certificate. One that ends it without
an alert can't be told from one that asks for nothing."""

_CROWDED = "response.flags == 0 && !has(upstream.address) && xds.filter_chain_name != ''"
"""A connection that its rule forwards, and that ended before it led anywhere: there was no room for its lookup."""

_UPSTREAM_REASON = (
    f"(has({_FAILURE}) && {_FAILURE}.contains('immediate connect error')) ? '{Reason.PRIVATE_ADDRESS}'"
    f" : (response.flags == 0 || response.flags / 128 % 2 == 1 ? '{Reason.LIMIT}'"  # bit 7: upstream overflow
    f" : (has(upstream.address) ? '{Reason.UNREACHABLE}' : '{Reason.NO_ADDRESS}'))"
)

_TUNNEL = f"has({_FAILURE}) && {_FAILURE}.contains('tunnel_response"
_PROXY_REASON = (
    f"({_TUNNEL}:403')) ? '{Reason.PROXY_REFUSED}' : ({_TUNNEL}:407')) ? '{Reason.PROXY_AUTH}'"
    f" : ({_TUNNEL}')) ? '{Reason.PROXY_FAILED}'"
    f" : (has(upstream.address) ? '{Reason.PROXY_UNREACHABLE}' : '{Reason.PROXY_NO_ADDRESS}')"
)
"""Decided first: otherwise, a proxy that can't be reached would read as the host's private address."""

_FORWARDED = "has(upstream.local_address)"
"""Of a connection that leads somewhere: Envoy has connected, and failed neither before nor at that."""

_UNANSWERED = f"{_FORWARDED} && response.size == 0"
"""Of a connection that leads to an origin, which has sent nothing. Which end has ended it, only a line can say:
`fwctl record` leaves out those that the agent has given up (`ended`)."""

_FORWARDED_REQUEST = f"has({_DETAILS}) && {_DETAILS} == 'via_upstream'"


def _upstream(serving: Serving) -> Mapping[str, str]:
    """Return the fields about where a connection leads, with the headers of the upstream proxy's answer."""
    headers = {"proxy": f"%FILTER_STATE({upstream.ANSWER}:TYPED)%"}
    return {**_UPSTREAM, **(headers if serving.policy.rules.proxy else {})}


def _leads_to(cluster: str) -> str:
    return f"has(xds.cluster_name) && xds.cluster_name == '{cluster}'"


def _of_proxy(serving: Serving, *, absolute: bool = False) -> Sequence[tuple[str, str]]:
    """Return the case of a connection that failed at the upstream proxy, or before it.

    Requests in `absolute` form get all their answers from the proxy.
    """
    # Bit 5: upstream connection failure.
    failed = "" if absolute else " && (response.flags / 32 % 2 == 1 || !has(upstream.address))"
    return [(f"{_leads_to(upstream.CLUSTER)}{failed}", _PROXY_REASON)] if serving.policy.rules.proxy else []


def _is_own_check(name: str, checkers: Sequence[IPv4Address]) -> str:
    """Whether CoreDNS checks that agents are refused. An agent may use its name as well."""
    from_one = " || ".join(f"source.address.startsWith('{checker}:')" for checker in checkers) or "false"
    return f"({name} == '{container.REFUSED_NAME}' && ({from_one}))"


def of_listener(serving: Serving) -> list[Json]:
    """Return the access log of a listener: connections that lead nowhere, because of us or because of where to."""
    own_check = _is_own_check(_SERVER_NAME, serving.addresses.checkers)
    refused = f"{_chain(chains.REFUSED)} && !{own_check}"
    denied = _chain(chains.DENIED)
    failed = _all(of_flags("UF", "UH", "URX", "DF", "UO"), cel(f"{_SERVER_NAME} != ''"))
    milliseconds = {"default_value": 950 * bounds.HELLO_SECONDS, "runtime_key": "refusals.hello"}
    never_said = _all({"duration_filter": {"comparison": {"op": "GE", "value": milliseconds}}}, cel(_chain("")))
    reason = _first(
        (denied, Reason.DENIED),
        (_chain(chains.INSPECTED), Reason.NOT_TRUSTED),
        (f"{_chain('')} && !has({_DETAILS})", Reason.TIMEOUT),
        *_of_proxy(serving),
        (f"xds.filter_chain_name != '' && xds.filter_chain_name != '{chains.REFUSED}'", _UPSTREAM_REASON),
        (f"!has({_SERVER_NAME}) || {_SERVER_NAME} == ''", Reason.NO_SERVER_NAME),
        (f"!{_SERVER_NAME}.matches('{_LIKE_A_HOST}') || size({_SERVER_NAME}) > 253", Reason.BAD_NAME),
        otherwise=Reason.NO_RULE,
    )
    # Of TLS that is looked into, requests have records of their own.
    forwards = f"xds.filter_chain_name != '{chains.REFUSED}' && xds.filter_chain_name != '{chains.INSPECTED}'"
    crowded = f"{_CROWDED} && {forwards} && {_SERVER_NAME} != ''"
    # One expression that ends early spares what is forwarded most of the time that several take.
    nowhere = cel(f"!has(upstream.address) && ({denied} || ({refused}) || ({crowded}) || ({_NOT_TRUSTED}))")
    any_of_them = _any(nowhere, failed, never_said)
    forwarded = cel(f"{_FORWARDED} && {_SERVER_NAME} != ''")
    fields = {**_FIELDS, **_upstream(serving), **_TLS, "reason": reason}
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
    fields = {**_FIELDS, **_upstream(serving), "protocol": "tcp", "name": name, "reason": reason}
    any_of_them = _any(failed, cel("response.flags == 0 && !has(upstream.address)"))
    # Records of all names come from one log: Envoy has a buffer and a timer for each that differs.
    further = {"name": f"%FILTER_STATE({NAME}:PLAIN)%"}
    return _logs(any_of_them, cel(_FORWARDED), fields, serving.reporting, further)


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
        cel("has(upstream.address) && !has(upstream.local_address)"),
    )
    no_room = of_flags("UO")
    reason = _first(
        ("!has(upstream.address)", Reason.LIMIT),
        ("upstream.address == '{}:{}'".format(*NOWHERE), Reason.NO_ADDRESS),
        otherwise=Reason.PRIVATE_ADDRESS,
    )
    fields = {**_FIELDS, **_UPSTREAM, "protocol": "udp", "name": name, "reason": reason}
    ended = _all({"log_type_filter": {"types": ["UdpSessionEnd"]}}, cel(_FORWARDED))
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
    return cel(f"has({_DETAILS}) && {_DETAILS} == '{details}'")


def of_route(beginning: str) -> Json:
    """Return the filter that passes what a route with a name that begins so has answered itself."""
    by_route = f"has({_DETAILS}) && {_DETAILS} == '{BY_ROUTE}'"
    return cel(f"{by_route} && has(xds.route_name) && xds.route_name.startsWith('{beginning}')")


def to_nowhere(serving: Serving, *, inspected: bool = False) -> list[Json]:
    """Return the access log of an internal listener: requests that their rule forwards, but lead nowhere.

    They are those of HTTP, or those in TLS that is `inspected`.
    """
    known = {name: f"%FILTER_STATE({key}:PLAIN)%" for name, key in _PASSED.items()}
    protocol_fields = {"protocol": "https", **known} if inspected else {"protocol": "http"}
    failed = of_flags("NR", "UF", "UH", "URX", "DF", "UO")
    fields = {
        **_FIELDS,
        **_upstream(serving),
        **protocol_fields,
        "source": f"%FILTER_STATE({SOURCE}:PLAIN)%",
        "port": f"%FILTER_STATE({PORT}:TYPED)%",
        "name": f"%FILTER_STATE({ASKED}:PLAIN)%",
        "reason": _first(
            (_chain(""), Reason.NO_RULE),
            *_of_proxy(serving, absolute=not inspected),
            (_FORWARDED, Reason.UNREACHABLE),
            otherwise=_UPSTREAM_REASON,
        ),
        "ended": "%DOWNSTREAM_DETECTED_CLOSE_TYPE%",
    }
    any_of_them = _all(_any(failed, cel(_CROWDED)), cel(_LAST_ATTEMPT))
    further = {"client": f"%FILTER_STATE({CLIENT}:PLAIN)%"}
    unanswered = cel(f"{_UNANSWERED} && ({_LAST_ATTEMPT})")
    logs = _logs(any_of_them, None, fields, serving.reporting, further, unanswered=unanswered)
    return [*logs, usage.of_requests(protocol_fields["protocol"], cel(_FORWARDED))]


def of_http(serving: Serving) -> list[Json]:
    """Return the access log of plain HTTP: every request that Envoy has answered itself, or could not answer.

    What the internal listener has written down already is not repeated. What goes to the page
    about refusals is neither refused nor traffic.
    """
    ended = " || ".join(f"{_DETAILS}.startsWith('{_BEFORE_RESPONSE}{why}')" for why in _ENDED)
    own = f"has({_DETAILS}) && {_DETAILS} != 'via_upstream' && (!({ended}) || {_REUSED} || {_SENT_ONCE})"
    proxy, broken = serving.policy.rules.proxy, f"{_DETAILS}.matches('protocol_error|stream_idle_timeout')"
    not_ours = f"!(has(request.host) && {_is_own_check('request.host', serving.addresses.checkers)})"
    reason = _first(
        (DENIED_ROUTE, Reason.DENIED),
        *((f"{_DETAILS} == '{reason}'", reason) for reason in upstream.page_reasons(proxy)),
        *([(f"{_leads_to(upstream.ABSOLUTE)} && {broken}", Reason.PROXY_UNREACHABLE)] if proxy else []),
        *([(f"{_DETAILS} == '{injected.MISSING}'", Reason.NO_SECRET)] if proxy else []),
        (f"{_DETAILS} == '{BY_ROUTE}'", Reason.NO_RULE),
        (f"{_DETAILS}.startsWith('rbac') || {_DETAILS}.contains('invalid_authority')", Reason.BAD_NAME),
        (f"{_DETAILS}.contains('timeout')", Reason.TIMEOUT),
        (" || ".join(f"{_DETAILS}.contains('{word}')" for word in _TOO_MUCH), Reason.LIMIT),
        (f"{_VIOLATION} || response.code < 500 || response.code == {_NOT_IMPLEMENTED}", Reason.BAD_REQUEST),
        otherwise=Reason.UNREACHABLE,
    )
    any_of_them = _of_requests(f"{own} && {not_ours} && !({PAGE_ROUTE})")
    http = {**_HTTP, **(_OF_ABSOLUTE if proxy else {})}
    fields = {**_FIELDS, **http, "reason": reason}
    forwarded = cel(f"{_FORWARDED_REQUEST} && !({PAGE_ROUTE})")
    observed = {**_FIELDS, **http, "reason": Reason.OBSERVED.value}
    route = f"has(xds.route_name) && xds.route_name == '{messages.OBSERVED_HTTP}'"
    passed = cel(f"{route} && {_FORWARDED_REQUEST}")
    logs = _logs(any_of_them, forwarded, fields, serving.reporting, {"rule": "%ROUTE_NAME%"})
    return [*logs, {**stdout(json_format=observed), "filter": passed}]


def of_inspected(reporting: Reporting | None) -> list[Json]:
    """Return the access log of requests in TLS that is looked into: those that are refused, or not answered.

    What the internal listener has written down already is not repeated.
    """
    unconnected = (
        f"{_DETAILS}.startsWith('{_BEFORE_RESPONSE}{_NOT_CONNECTED}') && !{_TLS_FAILED} && !({_SENT_ONCE})"
    )
    by_us = f"has({_DETAILS}) && {_DETAILS} != 'via_upstream' && !({unconnected})"
    by_host = f"response.code == {_UNAUTHORIZED} && '{injected.METADATA}' in xds.route_metadata.filter_metadata"
    bad = "response.code == 400 || response.code == 421"
    reason = _first(
        (f"{_DETAILS} == '{BY_ROUTE}' && response.code != 403", Reason.BAD_REQUEST),
        (f"{_DETAILS} == '{BY_ROUTE}' && xds.route_name == '{NO_RULE}'", Reason.NO_RULE),
        (f"{_DETAILS} == '{BY_ROUTE}'", Reason.PATH),
        (f"{_DETAILS} == '{NO_WAY}'", Reason.NO_WEBSOCKET),
        (f"{_DETAILS} == '{injected.MISSING}'", Reason.NO_SECRET),
        (f"{_DETAILS} == '{injected.NOT_ACCEPTED}' || {_DETAILS} == 'via_upstream'", Reason.SECRET_REFUSED),
        (f"{_DETAILS}.startsWith('rbac')", f"{bad} ? '{Reason.BAD_REQUEST}' : '{Reason.PATH}'"),
        (f"{_DETAILS}.contains('timeout') && response.code == 408", Reason.TIMEOUT),
        (" || ".join(f"{_DETAILS}.contains('{word}')" for word in _TOO_MUCH), Reason.LIMIT),
        (f"{_VIOLATION} || response.code < 500 || response.code == {_NOT_IMPLEMENTED}", Reason.BAD_REQUEST),
        (HOST_NOT_TRUSTED, Reason.HOST_NOT_TRUSTED),
        otherwise=Reason.UNREACHABLE,
    )
    fields = {**_FIELDS, **_UPSTREAM, **_HTTP, "protocol": "https", "rule": "%ROUTE_NAME%", "reason": reason}
    return _logs(_of_requests(f"({by_us}) || ({by_host})"), cel(_FORWARDED_REQUEST), fields, reporting)


def _of_requests(ours: str) -> Json:
    """Return the filter that passes failed requests for which an expression is true, and violations of HTTP/2."""
    violation = of_flags("DPE"), cel(f"({_VIOLATION}) && !has(upstream.address)")
    # Comparing a number first spares what is forwarded an expression, which takes longer.
    failed = {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "refusals.failed"}}}
    return _any(_all({"status_code_filter": failed}, cel(ours)), _all(*violation))


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


def _chain(name: str) -> str:
    return f"xds.filter_chain_name == '{name}'"


def cel(expression: str) -> Json:
    """Return a filter that passes what an expression is true for; where it can't be evaluated, nothing passes."""
    kind = "access_loggers.filters.cel.v3.ExpressionFilter"
    # Filter states are octets to CEL, which it takes for text only when it is told to.
    strings = {"cel_config": {"enable_string_conversion": True}}
    name = "envoy.access_loggers.extension_filters.cel"
    return {"extension_filter": extension(kind, name, expression=expression, **strings)}


def _first(*cases: tuple[str, Reason | str], otherwise: Reason | str) -> str:
    expression = f"'{otherwise}'" if isinstance(otherwise, Reason) else otherwise
    for condition, reason in reversed(cases):
        outcome = f"'{reason}'" if isinstance(reason, Reason) else f"({reason})"
        expression = f"({condition}) ? {outcome} : ({expression})"
    return f"%CEL({expression})%"
