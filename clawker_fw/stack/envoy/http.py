"""Plain HTTP: a request's Host (RFC 9110, section 7.2) selects the rule that decides and forwards it.

Routes of the connection manager decide on requests. Removing a route does not end its requests, such as a tunnel
or a long download. So requests are forwarded through an internal listener, which has a filter chain per rule:
removing a rule ends the connections through its chain.

A connection through the internal listener carries the destination of its first request as filter state. It is
reused only for requests of the same agent with the same destination.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from clawker_fw.rules.observing import PUBLIC_NAME
from clawker_fw.rules.own_page import PAGE, PAGE_PORT
from clawker_fw.rules.policy import Allowed, Key, Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.upstream import Proxy
from clawker_fw.stack.envoy import bounds, chains, injected, messages, refusals, upstream
from clawker_fw.stack.envoy.messages import ASKED, HOST, HOST_NAME, PORT, REQUEST, THROUGH_RULES, Json, extension
from clawker_fw.stack.envoy.telemetry import Serving

TABLE, PATH = "http", "rds/routes.json"
"""The route table of all ports. Every file that Envoy watches takes an inotify instance, and a user has 128 of
them (inotify(7))."""

_HEADERS_REMOVED = (
    "proxy-authorization",
    "proxy-connection",
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
)
"""Headers of proxies that an agent could forge, so they are removed."""

KEEPS_NO_CONTENT: Json = {"request_body_buffer_limit": "0"}
"""Requests with content are not sent again, because Envoy would have to keep the content until the response."""

_RATE = "filters.http.local_ratelimit.v3.LocalRateLimit"
WAITS = "x-clawker-fw-waits"
"""The header that marks a request to be delayed. If an agent sends it, its request is delayed as well."""

_EVERYTHING: Json = {"numerator": 100}

PAGE_SOCKET = "/tmp/page.sock"  # noqa: S108 - inside the container; a socket, because no agent can reach one

CHAIN = "http"
"""The filter chain for connections that are not TLS, on every port."""

_REUSE = "clawker_fw.reuse"
"""The filter state that keys upstream connections, in addition to the host. It contains the agent's address, so
two agents never share a connection, even if the host identifies clients by their connections.

Envoy compares 64-bit hashes that anybody can compute (xxHash), and with a subtree rule an agent chooses names.
The hash of a name with the agent and port before it is independent of the hash of the name: an agent would need a
name for which both collide with those of another one. (Envoy hashes the two in any order, so a host can have two
sets of connections.)
"""

_WHERE = "over http on port %DOWNSTREAM_LOCAL_PORT%"

MORE = f"http://{PAGE}/ says what was refused, why, and what a person can do\n"
"""Shown in responses instead of a command. Agents choose names and paths, and the page shows commands only for
names that a person may be asked about."""

LATER = 5
"""By how many seconds the connection manager's idle timeout is shorter, so that agents get its response."""


def listener(serving: Serving) -> list[Json]:
    """Return the internal listener, or nothing if no rule is for HTTP."""
    policy = serving.policy
    by_port = {port: chains.chains(f"http {port}", policy, Protocol.HTTP, port) for port in policy.rules.ports}
    used = {port: chosen for port, chosen in by_port.items() if chosen.rules}
    if not used:
        return []
    host = chains.matching_input("FilterStateInput", key=HOST)
    by_name = {str(port): chains.select(chosen, host) for port, chosen in used.items()}
    how = serving.limits.idle + LATER, f"%FILTER_STATE({ASKED}:PLAIN)%"
    # Requests without a rule are logged by the listener at which they arrive.
    way: Json = {"proxy": policy.rules.proxy, "absolute": True}
    every = (chains.forwarding(chosen, f"http-{port}", *how, **way) for port, chosen in used.items())
    log = refusals.to_nowhere(serving)
    return [internal_listener(THROUGH_RULES, by_name, [*itertools.chain.from_iterable(every)], log)]


def internal_listener(name: str, by_port: Json, filter_chains: Sequence[Json], access_log: Sequence[Json]) -> Json:
    """Return a listener to which only Envoy itself connects. `by_port` are the matchers that select a chain."""
    return messages.listener(
        name,
        name,
        internal_listener={},
        per_connection_buffer_limit_bytes=bounds.INNER_BUFFER,
        access_log=list(access_log),
        filter_chain_matcher=chains.exactly(chains.matching_input("FilterStateInput", key=PORT), by_port),
        filter_chains=list(filter_chains),
    )


def common(routes_name: str, routes_path: str, idle: float) -> Json:
    """Return the fields common to all filters that read requests: the route table, and limits.

    The port is removed from the Host header before matching. No client address counts as internal, so agents can't
    use the headers that control Envoy.
    """
    return {
        "rds": {"route_config_name": routes_name, "config_source": messages.config_source(routes_path)},
        "strip_any_host_port": True,
        "strip_trailing_host_dot": True,
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]},
        "skip_xff_append": True,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": messages.duration(idle),
        "common_http_protocol_options": {"idle_timeout": messages.duration(idle)},
        "request_headers_timeout": f"{bounds.HELLO_SECONDS}s",
        "max_request_headers_kb": bounds.HEADERS_KIBIBYTES,
        "http2_protocol_options": {
            "max_concurrent_streams": bounds.STREAMS,
            "initial_stream_window_size": 2 * bounds.BUFFER,
            "initial_connection_window_size": 16 * bounds.BUFFER,
        },
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }


def connection_manager(serving: Serving) -> Json:
    """Return the filter for plain HTTP.

    The upstream port is the listener's own: `Host: allowed.test:2222` never reaches port 2222.
    """
    proxy = serving.policy.rules.proxy
    # In lower case, as Envoy writes server names of TLS: its cache of names is case-sensitive.
    name = "%CEL(request.headers[':authority'].lowerAscii())%"
    path = ["path"] if proxy else []
    without = refusals.of_details(injected.MISSING)
    no_secret = [answering(without, f"{Reason.NO_SECRET.sentence}\n", status_code=503)] if proxy else []
    return extension(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        **common(TABLE, PATH, serving.limits.idle),
        stat_prefix=TABLE,
        http_filters=[
            *pacing(),
            _host_names_only(),
            *upstream.replacing(proxy),
            remembering(name, "%DOWNSTREAM_LOCAL_PORT%", *refusals.passed("method", *path)),
            router(),
        ],
        local_reply_config={
            "mappers": [*no_secret, *(answering(filter_, text) for filter_, text in _answers(proxy))]
        },
        access_log=refusals.of_http(serving),
    )


def _answers(proxy: Proxy | None) -> Iterator[tuple[Json, str]]:
    yield refusals.passing(refusals.PAGE_ROUTE), "this page can't be read just now: try again\n"
    yield refusals.passing(refusals.DENIED_ROUTE), f"{Reason.DENIED.sentence} {_WHERE}\n{MORE}"
    yield refusals.passing(refusals.BAD_NAME), f"{Reason.BAD_NAME.sentence}, so no rule can allow it {_WHERE}\n"
    yield refusals.of_details(refusals.BY_ROUTE), f"{Reason.NO_RULE.sentence} {_WHERE}\n{MORE}"
    yield refusals.of_status(403), f"{Reason.BAD_REQUEST.sentence}\n"
    why = (
        "its name has no address, or one that the rule may not reach, or the host refused or ended the connection"
    )
    why += upstream.NO_ANSWER if proxy else ""
    yield refusals.of_flags("UC", "UF"), f"no answer from this host {_WHERE}: {why}\n{MORE}"


def answering(filter_: Json, sentence: str, **fields: int) -> Json:
    """Return the response to an agent for requests that pass a filter."""
    text = {"text_format_source": {"inline_string": f"clawker-fw: {sentence}"}}
    return {"filter": filter_, **fields, "body_format_override": text}


def judging(policy: str, filter_: str = "", *, permissions: Sequence[Json], deny: bool, **fields: Json) -> Json:
    """Return a filter that refuses the requests that a policy matches, or all others."""
    applied = {"permissions": list(permissions), "principals": [{"any": True}], **fields}
    rules = {**({"action": "DENY"} if deny else {}), "policies": {policy: applied}}
    return extension("filters.http.rbac.v3.RBAC", filter_, rules=rules)


def remembering(host: str, rule: str, *more: Json) -> Json:
    """Return the filter that stores the destination for the internal listener, and the key of the connection.

    `host` is the format of the name, in lower case. `rule` is the format of the rest of the key, which an agent
    can't choose.
    """
    hashed = "envoy.hashable_string"
    agent = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"  # which no header changes
    return extension(
        "filters.http.set_filter_state.v3.Config",
        on_request_headers=[
            messages.passed_on(HOST, host, messages.cel_formatter(), factory_key=hashed),
            messages.passed_on(ASKED, f"%FILTER_STATE({HOST}:PLAIN)%", factory_key="envoy.string"),
            messages.passed_on(REQUEST, "%UNIQUE_ID%", factory_key="envoy.string"),
            messages.passed_on(_REUSE, f"{agent} {rule} %FILTER_STATE({HOST}:PLAIN)%", factory_key=hashed),
            *more,
        ],
    )


def pacing() -> list[Json]:
    """Return the filters that delay an agent's requests beyond its rate. They come before all others.

    The first one counts requests with the configuration in the route table (`paced`), which all listeners share:
    otherwise every port would have its own rate. It marks requests beyond the rate, and the second one delays
    them.
    """
    return [
        extension(_RATE, stat_prefix="unpaced"),
        extension(
            "filters.http.fault.v3.HTTPFault",
            delay={"fixed_delay": f"{bounds.WAIT_SECONDS}s", "percentage": _EVERYTHING},
            headers=[{"name": WAITS, "present_match": True}],
        ),
    ]


def paced(requests_per_second: int) -> Json:
    """Return the configuration of `pacing` for a route table: a token bucket per agent's address."""
    at_once = max(1, requests_per_second // bounds.BURSTS)
    fields = {"max_tokens": at_once, "tokens_per_fill": requests_per_second, "fill_interval": "1s"}
    rate = extension(
        _RATE,
        stat_prefix="paced",
        filter_enabled={"default_value": _EVERYTHING},
        rate_limits=[{"actions": [{"remote_address": {}}]}],
        descriptors=[{"entries": [{"key": "remote_address"}], "token_bucket": fields}],
        max_dynamic_descriptors=bounds.PACED_AGENTS,
        token_bucket=fields,  # required, but unused
        always_consume_default_token_bucket=False,
        request_headers_to_add_when_not_enforced=[{"header": {"key": WAITS, "value": "1"}}],
    )
    return {rate["name"]: rate["typed_config"]}


def router() -> Json:
    """Return the filter that forwards requests."""
    return extension("filters.http.router.v3.Router", dynamic_stats=False, suppress_envoy_headers=True)


def _host_names_only() -> Json:
    # Overrides the routes.
    other = [
        {"header": {"name": ":authority", "string_match": {"safe_regex": {"regex": regex}}, "invert_match": True}}
        for regex in HOST_NAME
    ]
    return judging("no-host-name", permissions=[{"or_rules": {"rules": other}}], deny=True)


def table(policy: Policy, requests_per_second: int) -> Json:
    """Return the route table. Names on which the same ports are allowed and denied share a virtual host.

    Envoy uses only the virtual host with the most specific pattern. So it includes the further ports that rules
    for parent domains allow.
    """
    hosts: dict[tuple[tuple[_Way, ...], tuple[int, ...]], list[str]] = {}
    for pattern, scope in policy.scopes.items():
        if pattern != PAGE and any(protocol is Protocol.HTTP for protocol, _ in scope.own):
            denied = {key: rule for key, rule in scope.own.items() if rule.denies}
            hosts.setdefault((_ways(scope.allowed), _ports(denied)), []).append(pattern)
    virtual_hosts = [
        {
            "name": " ".join([*map(str, allowed), *(f"{messages.DENIED_HTTP}-{port}" for port in denied)]),
            "domains": sorted(domains),
            "routes": [*map(_forward, allowed), *map(_deny, denied), _refuse()],
            **KEEPS_NO_CONTENT,
        }
        for (allowed, denied), domains in sorted(hosts.items())
    ]
    observed = [*map(_observe, _ways(policy.observed))]
    named = {pattern for domains in hosts.values() for pattern in domains}
    unobserved = [pattern for pattern in policy.unobserved if observed and pattern not in {*named, PAGE}]
    return {
        "@type": f"{messages.TYPES}.config.route.v3.RouteConfiguration",
        "name": TABLE,
        "virtual_hosts": [
            *virtual_hosts,
            {"name": messages.TO_PAGE, "domains": [PAGE], "routes": [_page(), _refuse()]},
            *([{"name": "unobserved", "domains": unobserved, "routes": [_refuse()]}] if unobserved else []),
            {
                "name": "refused",
                "domains": ["*"],
                "routes": [*observed, _refuse()],
                **(KEEPS_NO_CONTENT if observed else {}),
            },
        ],
        "request_headers_to_remove": [*_HEADERS_REMOVED, WAITS],
        "typed_per_filter_config": {**paced(requests_per_second), **upstream.for_every_route(policy.rules.proxy)},
    }


class _Way(NamedTuple):
    """An allowed port, and whether requests to it go through the upstream proxy."""

    port: int
    proxied: bool

    def __str__(self) -> str:
        return f"{self.port} proxied" if self.proxied else str(self.port)


def _ports(keys: Iterable[Key]) -> tuple[int, ...]:
    return tuple(sorted(port for protocol, port in keys if protocol is Protocol.HTTP))


def _ways(allowed: Allowed) -> tuple[_Way, ...]:
    return tuple(_Way(port, allowed[Protocol.HTTP, port].proxied) for port in _ports(allowed))


def _on(port: int) -> Json:
    return {"prefix": "/", "filter_state": [{"key": PORT, "string_match": {"exact": str(port)}}]}


def _forward(allowed: _Way) -> Json:
    # Matching has stripped the port from the Host header. It is added again for the origin.
    port = allowed.port
    host = {} if port == Protocol.HTTP.default_port else {"host_rewrite": f"%REQ(:AUTHORITY)%:{port}"}
    way = upstream.absolute_form(port) if allowed.proxied else {"route": {"cluster": THROUGH_RULES}}
    way["route"] |= {"timeout": "0s", **host}
    return {"match": _on(port), **way}


def _observe(allowed: _Way) -> Json:
    """Return the route for names without a rule while observing."""
    match = _on(allowed.port)
    public = {"name": ":authority", "string_match": {"safe_regex": {"regex": PUBLIC_NAME}}}
    return {**_forward(allowed), "name": messages.OBSERVED_HTTP, "match": {**match, "headers": [public]}}


def _deny(port: int) -> Json:
    return {"name": messages.DENIED_HTTP, "match": _on(port), "direct_response": {"status": 403}}


def _page() -> Json:
    """Return the route of the page. It replaces the header if the agent sent it."""
    agent = {"key": "x-clawker-fw-agent", "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}
    return {
        "name": messages.TO_PAGE,
        "match": _on(PAGE_PORT),
        "route": {"cluster": messages.TO_PAGE, "timeout": "5s"},
        "request_headers_to_add": [{"header": agent, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def _refuse() -> Json:
    return {"match": {"prefix": "/"}, "direct_response": {"status": 403}}
