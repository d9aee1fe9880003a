"""TLS that is looked into: what a rule with paths allows of a host, request by request.

A rule has a filter chain of its own here, too, which ends TLS and reads requests. All chains ask one table of
routes, with a virtual host for each name, whose routes match the port that the agent has connected to. So a path
that is added or taken away is a change of the table, which ends nothing and holds for the next request. What ends
requests that are under way is the name of the chain: it has a digest of all that the rule refuses.

Envoy sees paths in one form (`rules.paths.seen`), and the host gets just this form. A request must name the host
that TLS has named, or a connection for one rule would reach another one's host.

Nothing here knows where certificates come from: what ends TLS is given (`inspection.chain`).
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from clawker_fw.rules.paths import (
    ALWAYS_BAD,
    BAD_BELOW_A_DENY,
    DEFAULT_HEADER,
    TRACE,
    Access,
    PathRule,
    Paths,
    Repository,
)
from clawker_fw.rules.policy import Policy, RuleScope
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.schema import Protocol, Rule
from clawker_fw.stack.envoy import bounds, http, injected, lookups, refusals
from clawker_fw.stack.envoy.messages import (
    HOST,
    PORT,
    SHARE,
    TYPES,
    Json,
    extension,
    state,
    typed,
)
from clawker_fw.stack.envoy.telemetry import Reporting
from clawker_fw.stack.resources import Encoded

NAME = "inspected"

SERVER_NAME = "%REQUESTED_SERVER_NAME%"
"""Envoy has it in lower case."""

_HEADERS_REMOVED = (
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-request-id",
    "x-rewrite-url",
)
"""What a proxy adds and an agent could forge, and what tells a host to take a request for another one."""

_GET, _WEBSOCKET = "GET", "websocket"
_BAD_PATH, _TRACE, _NAMES_HOST = "bad-path", "trace", "sni-is-host"
_URL = "https://%REQ(:AUTHORITY)%:%DOWNSTREAM_LOCAL_PORT%%PATH(NQ:PATH)%"
_REFUSED = f"clawker-fw: {Reason.PATH.sentence}\nclawker-fw explain '{_URL}' --method '%REQ(:METHOD)%'\n"
_ODD_PATH = "clawker-fw: hosts disagree about what such a path means, so no rule can allow it\n"
_OTHER_HOST = "clawker-fw: the request names another host than the TLS connection that it came in\n"
_NO_ANSWER = (
    "clawker-fw: no answer from this host over https on port %DOWNSTREAM_LOCAL_PORT%: its name has no address, or "
    "one that the rule may not reach, or the host refused or ended the connection, or did not prove its name\n"
)

_NO_SECRET = f"clawker-fw: {Reason.NO_SECRET.sentence}\n"

Terminated = Callable[[Rule], Json]
"""Returns the fields of a rule's chain that end TLS: its transport socket, with ALPN for HTTP/2 and HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """How TLS is looked into: where its table of routes lies, below `hot/`, and what ends TLS."""

    routes_path: str
    terminated: Terminated


# --- clusters ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Upstream:
    """A way to hosts: from which source address, with which cache of names, and how TLS is spoken."""

    exempt: bool
    below: bool
    verify: bool
    upgrades: bool

    @property
    def name(self) -> str:
        """The name of its cluster."""
        words = (
            "exempt" if self.exempt else "guarded",
            lookups.BELOW if self.below else lookups.NAMED,
            "tls",
            "" if self.verify else "unverified",
            "http/1.1" if self.upgrades else "",
        )
        return " ".join(word for word in words if word)


def clusters(sources: Mapping[bool, IPv4Address], trusted: str) -> Iterator[Json]:
    """Yield the clusters that lead to hosts over TLS, for the bootstrap.

    `sources` are the addresses to connect from, of which the one for True can reach private addresses. `trusted`
    is the file with the authorities that hosts prove their names by.
    """
    caches = {(each.exempt, each.cache["name"]): each.cache for each in lookups.clusters()}
    flags = (False, True)
    for upstream in (_Upstream(a, b, c, d) for a in flags for b in flags for c in flags for d in flags):
        cache = caches[upstream.exempt, lookups.BELOW if upstream.below else lookups.NAMED]
        yield _cluster(upstream, cache, sources[upstream.exempt], trusted)


def _cluster(upstream: _Upstream, cache: Json, source: IPv4Address, trusted: str) -> Json:
    options = "upstreams.http.v3.HttpProtocolOptions"
    verified: Json = {"validation_context": {"trusted_ca": {"filename": trusted}}} if upstream.verify else {}
    if upstream.upgrades:
        spoken: Json = {"explicit_http_config": {"http_protocol_options": {}}}
    else:
        spoken = {"auto_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
    return {
        "name": upstream.name,
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "per_connection_buffer_limit_bytes": bounds.BUFFER,
        "cluster_type": extension(
            "envoy.clusters.dynamic_forward_proxy",
            "clusters.dynamic_forward_proxy.v3.ClusterConfig",
            dns_cache_config=cache,
            **({} if upstream.verify else {"allow_insecure_cluster_options": True}),
        ),
        "upstream_bind_config": {"source_address": {"address": str(source), "port_value": 0}},
        "circuit_breakers": bounds.unbounded(),
        "transport_socket": typed(
            "envoy.transport_sockets.tls",
            f"{TYPES}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context=verified,
        ),
        "typed_extension_protocol_options": {
            f"envoy.extensions.{options}": {
                "@type": f"{TYPES}.extensions.{options}",
                **spoken,
                "http_filters": injected.cluster_filters(),
                "upstream_http_protocol_options": {"auto_sni": True, "auto_san_validation": upstream.verify},
                "common_http_protocol_options": {"idle_timeout": f"{bounds.REUSE_SECONDS}s"},
            }
        },
    }


# --- chains ------------------------------------------------------------------------------------------------------


def chain(name: str, rule: Rule, idle: float, inspection: Inspection, reporting: Reporting | None = None) -> Json:
    """Return the filter chain of a rule. `idle` is in seconds: for so long nothing need be sent."""
    return {
        "name": name,
        "filters": _filters(idle, inspection.routes_path, reporting, below=rule.destination.subtree),
        **inspection.terminated(rule),
    }


def holder(idle: float, inspection: Inspection, reporting: Reporting | None = None) -> Json:
    """Return a listener that nothing leads to. With it, the table is loaded also while no rule looks into TLS."""
    manager = _connection_manager(lookups.NAMED, idle, inspection.routes_path, reporting)
    return {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": NAME,
        "stat_prefix": NAME,
        "internal_listener": {},
        "filter_chains": [{"name": NAME, "filters": [manager]}],
    }


@functools.lru_cache(maxsize=8)
def _filters(idle: float, routes_path: str, reporting: Reporting | None, *, below: bool) -> Sequence[Encoded]:
    """Return the filters of a chain: the same for all rules with the same cache of names."""
    host = f"{SERVER_NAME}.%FILTER_STATE({SHARE}:PLAIN)%" if below else SERVER_NAME
    looked_up_as = extension(
        "envoy.filters.network.set_filter_state",
        "filters.network.set_filter_state.v3.Config",
        on_new_connection=[state(HOST, host)],
    )
    cache = lookups.BELOW if below else lookups.NAMED
    return [Encoded(looked_up_as), Encoded(_connection_manager(cache, idle, routes_path, reporting))]


def _connection_manager(cache: str, idle: float, routes_path: str, reporting: Reporting | None) -> Json:
    """Return the filter that reads requests. `cache` is the name of that of names."""
    looked_up = next(each.cache for each in lookups.clusters() if each.cache["name"] == cache)
    return extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        **http.common(NAME, routes_path, idle),
        stat_prefix=NAME,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        http_filters=[
            _denying(_BAD_PATH, {"url_path": {"path": _regex(f".*({ALWAYS_BAD}).*")}}),
            _denying(_TRACE, {"header": _exactly(":method", TRACE)}),
            _names_its_host(),
            *injected.connection_filters(),
            extension(
                "envoy.filters.http.dynamic_forward_proxy",
                "filters.http.dynamic_forward_proxy.v3.FilterConfig",
                dns_cache_config=looked_up,
                allow_dynamic_host_from_filter_state=True,
            ),
            extension(
                "envoy.filters.http.router",
                "filters.http.router.v3.Router",
                dynamic_stats=False,
                suppress_envoy_headers=True,
            ),
        ],
        local_reply_config={"mappers": list(_answers())},
        access_log=refusals.of_inspected(reporting),
    )


def _denying(name: str, what: Json) -> Json:
    return _rbac(name, {"permissions": [what], "principals": [{"any": True}]}, action="DENY")


def _names_its_host() -> Json:
    """Return the filter that refuses a request for another host than TLS has named.

    It allows, which is the default, so what is refused matched no policy: no other filter here does so.
    """
    asked = {"call_expr": {"function": "lowerAscii", "target": _selected("request", "host")}}
    same = {"call_expr": {"function": "_==_", "args": [_selected("connection", "requested_server_name"), asked]}}
    anybody: Json = {"permissions": [{"any": True}], "principals": [{"any": True}], "condition": same}
    return _rbac(_NAMES_HOST, {**anybody, "cel_config": {"enable_string_functions": True}})


def _selected(root: str, field: str) -> Json:
    return {"select_expr": {"operand": {"ident_expr": {"name": root}}, "field": field}}


def _rbac(name: str, policy: Json, **action: str) -> Json:
    return extension(
        f"envoy.filters.http.rbac.{name}",
        "filters.http.rbac.v3.RBAC",
        rules={**action, "policies": {name: policy}},
    )


def _answers() -> Iterator[Json]:
    """Yield how what is refused is told to an agent; the first that matches. What git prints is in its routes."""
    yield {"filter": refusals.of_route("git ")}
    for filter_, status, text in (
        (refusals.of_details("rbac_access_denied_matched_policy[none]"), 421, _OTHER_HOST),
        (refusals.of_details(f"rbac_access_denied_matched_policy[{_BAD_PATH}]"), 400, _ODD_PATH),
        (refusals.of_route(_BAD_PATH), 400, _ODD_PATH),
        (refusals.of_status(403), 403, _REFUSED),
        (refusals.of_details(injected.MISSING), 503, _NO_SECRET),
        (refusals.of_status(503), 503, _NO_ANSWER),
    ):
        yield {
            "filter": filter_,
            "status_code": status,
            "body_format_override": {"text_format_source": {"inline_string": text}},
        }


# --- routes ------------------------------------------------------------------------------------------------------


Headers = Mapping[str, str]
"""The header of each secret, in lower case. Of one that is not here, it is the usual one."""

_USUAL: Headers = {}


def table(policy: Policy, headers: Headers = _USUAL) -> Json:
    """Return the table of routes: a virtual host for each name for which TLS is looked into, on any port."""
    hosts = [
        {
            "name": pattern,
            "domains": [pattern],
            "routes": [*_routes(scope, headers), _refuse("refused", {"prefix": "/"})],
        }
        for pattern, scope in sorted(policy.scopes.items())
        if any(_inspects(key, rule) for key, rule in (*scope.inherited.items(), *scope.own.items()))
    ]
    return {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [
            *hosts,
            {"name": "refused", "domains": ["*"], "routes": [_refuse("refused", {"prefix": "/"})]},
        ],
        "request_headers_to_remove": list(_HEADERS_REMOVED),
    }


def _inspects(key: tuple[Protocol, int], rule: Rule) -> bool:
    return key[0] is Protocol.HTTPS and rule.paths is not None


def _routes(scope: RuleScope, headers: Headers) -> Iterator[Json]:
    """Yield the routes of a name, in the order in which they decide: `Paths.decide` says the same."""
    for key, rule in sorted(scope.allowed.items(), key=lambda each: each[0]):
        if rule.paths and _inspects(key, rule):
            for route in _of_rule(rule, rule.paths):
                route["match"]["filter_state"] = [{"key": PORT, "string_match": {"exact": str(key[1])}}]
                if rule.paths.injection and "route" in route:
                    header = headers.get(rule.paths.injection.secret, DEFAULT_HEADER)
                    by_git = any(route["name"] == str(each) for each in rule.paths.repositories)
                    route.update(injected.of_route(rule.paths.injection, header, git=by_git))
                yield route


def _of_rule(rule: Rule, paths: Paths) -> Iterator[Json]:
    if paths.strict:
        yield _refuse(_BAD_PATH, _regex(f".*({BAD_BELOW_A_DENY}).*"), 400)
    for repository in paths.repositories:
        yield from _of_git(rule, repository, lfs=paths.lfs)
    for repository in paths.repositories:
        for path in repository.reserved:
            yield _refuse(str(repository), {"path_separated_prefix": path}, body=_told(repository))
    for each in paths.rules:
        yield from _of_path(rule, each)
    yield from _to_host(rule, "others", {"prefix": "/"}) if paths.others else [_refuse("others", {"prefix": "/"})]


def _of_git(rule: Rule, repository: Repository, *, lfs: bool) -> Iterator[Json]:
    """Yield the routes for the requests of git: each exactly, with its query, which could be written twice."""
    for request in repository.requests(lfs=lfs):
        exactly = [_exactly(":method", request.method), _exactly(":path", request.target)]
        match = {"path": request.target.partition("?")[0], "headers": exactly}
        if request.allowed:
            yield _forward(rule, str(repository), match)
        else:
            yield _refuse(str(repository), match, body=_told(repository))


def _told(repository: Repository) -> str:
    """Return what git prints."""
    if repository.access is Access.READ:
        return f"clawker-fw: {repository.name} may be fetched, not pushed to\n"
    return f"clawker-fw: git does not ask for {repository.name} in this way\n"


def _of_path(rule: Rule, path: PathRule) -> Iterator[Json]:
    if path.expression:
        match = _regex(path.path)
    else:
        match = {"prefix": "/"} if path.path == "/" else {"path_separated_prefix": path.path}
    for method in path.methods or ("",):
        each = {**match, **({"headers": [_exactly(":method", method)]} if method else {})}
        if path.denies:
            yield _refuse(str(path), each)
        else:
            yield from _to_host(rule, str(path), each, method)


def _to_host(rule: Rule, name: str, match: Json, method: str = "") -> Iterator[Json]:
    """Yield the routes to a host: a WebSocket begins over HTTP/1.1, whatever the host prefers (RFC 6455)."""
    if method in {"", _GET}:
        upgrading = {"name": "upgrade", "string_match": {"exact": _WEBSOCKET, "ignore_case": True}}
        headers = [*match.get("headers", ()), upgrading]
        yield _forward(rule, name, {**match, "headers": headers}, upgrades=True)
    yield _forward(rule, name, dict(match))


def _forward(rule: Rule, name: str, match: Json, *, upgrades: bool = False) -> Json:
    verify = rule.paths is None or rule.paths.verify
    upstream = _Upstream(rule.allow_private, rule.destination.subtree, verify, upgrades)
    # Matching has stripped the port from the Host header. It is added again for the host.
    port = {} if rule.port == Protocol.HTTPS.default_port else {"host_rewrite": f"%REQ(:AUTHORITY)%:{rule.port}"}
    return {"name": name, "match": match, "route": {"cluster": upstream.name, "timeout": "0s", **port}}


def _refuse(name: str, match: Json, status: int = 403, body: str = "") -> Json:
    response: Json = {"status": status, **({"body": {"inline_string": body}} if body else {})}
    return {"name": name, "match": dict(match), "direct_response": response}


def _exactly(header: str, value: str) -> Json:
    return {"name": header, "string_match": {"exact": value}}


def _regex(expression: str) -> Json:
    return {"safe_regex": {"regex": expression}}
