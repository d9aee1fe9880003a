"""Inspected TLS: apply a rule's paths to each request.

All such rules of a port have one filter chain, which ends TLS and reads requests. Its table of routes has a
virtual host per name, and routes match the port that the agent connected to.

Like plain HTTP (`http`), requests then pass an internal listener, with a filter chain per part of an
allowance (`Paths.allowances`). Its name has a digest of the exceptions, so removing a part ends its requests.

Envoy normalizes paths (`rules.paths.seen`), also for the host. A request must name the host in its TLS server
name, so that a connection for one rule can't reach another rule's host.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from clawker_fw.rules.paths import (
    ALWAYS_BAD,
    DEFAULT_HEADER,
    REFUSED_METHODS,
    WEBSOCKET,
    Access,
    PathRule,
    Paths,
    Repository,
)
from clawker_fw.rules.policy import Policy, RuleScope
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.spellings import HIDING, literal, with_query
from clawker_fw.rules.upstream import Proxy
from clawker_fw.stack.envoy import chains, http, injected, lookups, messages, refusals, signing, upstream
from clawker_fw.stack.envoy.messages import ASKED, PORT, THROUGH_PATHS, TYPES, Json, extension, typed
from clawker_fw.stack.envoy.telemetry import Serving

NAME = "inspected"

PATH = "rds-inspected/routes.json"
"""The table of routes, below `hot/`."""

ALONE = 5_000
"""How many parts of allowances on a port have a chain each. The others share chains, as rules do."""

SERVER_NAME = "%REQUESTED_SERVER_NAME%"
"""Envoy converts it to lower case."""

HEADERS_REMOVED = (
    "base-url",
    "forwarded",
    "method-override",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "proxy-host",
    "request-uri",
    "x-accel-mapping",
    "x-accel-redirect",
    "x-base-url",
    "x-envoy-external-address",
    "x-forwarded",
    "x-host",
    "x-ingress-path",
    "x-invoke-path",
    "x-matched-path",
    "x-method",
    "x-path-info",
    "x-proxy-url",
    "x-real-host",
    "x-real-method",
    "x-real-path",
    "x-real-url",
    "x-replaced-path",
    "x-request-id",
    "x-request-method",
    "x-request-uri",
    "x-script-name",
    "x-sendfile",
    "x-sendfile-type",
    "x-waws-unencoded-url",
    "x-wsgi-script-name",
)
"""Headers that proxies add and agents could forge, or that redirect requests. The inspected-TLS page has all."""

PREFIXES_REMOVED = ("http", "x-forwarded", "x-host", "x-http", "x-method", "x-original", "x-override", "x-rewrite")
"""Prefixes, before a hyphen, of more such headers: see `_without_misread_headers`."""

SECOND_PATHS = (
    "destination",
    "x-amz-copy-source",
    "x-amz-rename-source",
    "x-copy-from",
    "x-copy-source",
    "x-cos-copy-source",
    "x-goog-copy-source",
    "x-ms-copy-source",
    "x-ms-rename-source",
    "x-object-manifest",
    "x-obs-copy-source",
    "x-oss-copy-source",
    "x-symlink-target",
)
"""Headers with a second path to copy or move (RFC 4918, section 10.3; object storage), which no rule checks."""

_UPGRADE: Json = {"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}
"""Matches requests for a WebSocket. Envoy removes the header earlier if `Connection: Upgrade` is missing."""
_CHOOSING = "router.cluster_specifiers.matcher.v3"
_BAD_PATH = "bad-path"
_HIDDEN = "another spelling of "
"""Begins the names of routes for ambiguous paths near an expression that denies."""
_NO_WEBSOCKET = "no WebSockets"
"""A missing cluster for WebSocket requests that are allowed only without upgrade: all other checks come first."""
_NO_UPGRADE = "upgrade_failed"
"""Envoy's response code details (`%RESPONSE_CODE_DETAILS%`) for upgrades other than to WebSocket."""


def _way(*, verify: bool, upgrades: bool = False) -> str:
    return " ".join([THROUGH_PATHS, *([] if verify else ["unverified"]), *(["http/1.1"] if upgrades else [])])


def chain(serving: Serving) -> Json:
    """Return the filter chain for inspected TLS."""
    return {"name": chains.INSPECTED, "filters": [_connection_manager(serving)], **signing.chain()}


def holder(serving: Serving) -> Json:
    """Return a listener that nothing leads to. It keeps the table loaded while no rule inspects TLS."""
    holding = [{"name": NAME, "filters": [_connection_manager(serving)]}]
    return messages.listener(NAME, NAME, internal_listener={}, filter_chains=holding)


def listener(serving: Serving) -> list[Json]:
    """Return the internal listener for inspected requests, or nothing if no rule inspects TLS."""
    rules: dict[str, Rule] = {}
    by_port: Json = {}
    route = chains.matching_input("FilterStateInput", key=refusals.ROUTE)
    for port in serving.policy.rules.ports:
        if allowed := _allowed(serving.policy, port):
            rules |= dict(allowed.values())
            chosen = {name: {"action": chains.action(chain)} for name, (chain, _) in allowed.items()}
            by_port[str(port)] = {"matcher": chains.exactly(route, chosen)}
    if not by_port:
        return []
    sent = NAME, serving.limits.idle + http.LATER, f"%FILTER_STATE({ASKED}:PLAIN)%"
    forwarding = [
        {"name": chain, "filters": lookups.forwarding(rule, *sent, proxy=serving.policy.rules.proxy)}
        for chain, rule in sorted(rules.items())
    ]
    log = refusals.to_nowhere(serving, inspected=True)
    return [http.internal_listener(THROUGH_PATHS, by_port, forwarding, log)]


def _allowed(policy: Policy, port: int) -> dict[str, tuple[str, Rule]]:
    """Return the chain and the rule of each route, by the part of the allowance that the route stands for."""
    exceptions = policy.exceptions(Protocol.HTTPS, port)
    rules, members = {}, {}
    for rule in dict.fromkeys(policy.patterns(Protocol.HTTPS, port).values()):
        if rule.paths is None or rule.denies:
            continue
        kind = lookups.kind(rule)
        verified = "" if rule.paths.verify else " unverified"
        without = chains.without(exceptions.get(rule, ()))
        for words, refused in rule.paths.allowances.items():
            but = f" except {chains.digest(refused)}" if refused else ""
            route = _named(rule, words)
            rules[route] = rule
            alone = f"{rule.destination} {kind}{verified}{without}{but}: {words}"
            members[route] = chains.Member(alone, chains.shared_kind(rule))
    named = chains.named(f"https {port}", members, ALONE)
    return {route: (chain_, rules[route]) for route, chain_ in named.items()}


def _named(rule: Rule, words: str) -> str:
    return f"{rule.destination} {words}"


def _connection_manager(serving: Serving) -> Json:
    common = http.common(NAME, PATH, serving.limits.idle)
    common["common_http_protocol_options"]["headers_with_underscores_action"] = "DROP_HEADER"
    return extension(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        **common,
        stat_prefix=NAME,
        http_protocol_options={"allow_custom_methods": True},  # as over HTTP/2: the routes decide
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        http_filters=[
            *http.pacing(),
            _denying(_BAD_PATH, {"url_path": {"path": _regex(f".*({ALWAYS_BAD}).*")}}),
            _denying("trace", *({"header": _method(method, ignore_case=True)} for method in REFUSED_METHODS)),
            _without_misread_headers(),
            _names_its_host(),
            extension("filters.http.custom_response.v3.CustomResponse", injected.EXPLAINING),
            http.remembering(SERVER_NAME, "%DOWNSTREAM_LOCAL_PORT% %ROUTE_NAME%", *refusals.passed()),
            http.router(),
        ],
        local_reply_config={"mappers": list(_answers(serving.policy.rules.proxy))},
        access_log=refusals.of_inspected(serving.reporting),
    )


def _denying(name: str, *what: Json) -> Json:
    return http.judging(name, f"envoy.filters.http.rbac.{name}", permissions=what, deny=True)


def _without_misread_headers() -> Json:
    """Return the filter that removes headers by prefix, and headers that hosts may read as removed ones.

    CGI (RFC 3875, section 4.1.18), WSGI and others turn each character that is not a letter or digit into an
    underscore.
    """
    misread = _regex(f".*[^:a-zA-Z0-9-].*|(?:{'|'.join(PREFIXES_REMOVED)})-.*")
    return extension(
        "filters.http.header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [{"remove_on_match": {"key_matcher": misread}}]},
    )


def _names_its_host() -> Json:
    """Return the filter that refuses a request for another host than the TLS server name.

    It allows by default, so a refused request matched no policy, unlike those of the other filters here.
    """
    asked = {"call_expr": {"function": "lowerAscii", "target": _selected("request", "host")}}
    same = {"call_expr": {"function": "_==_", "args": [_selected("connection", "requested_server_name"), asked]}}
    further: Json = {"condition": same, "cel_config": {"enable_string_functions": True}}
    name = "sni-is-host"
    anybody = [{"any": True}]
    return http.judging(name, f"envoy.filters.http.rbac.{name}", permissions=anybody, deny=False, **further)


def _selected(root: str, field: str) -> Json:
    return {"select_expr": {"operand": {"ident_expr": {"name": root}}, "field": field}}


def _answers(proxy: Proxy | None) -> Iterator[Json]:
    """Yield the answers to refused requests; the first match counts. Explanations for git are in its routes."""
    yield {"filter": refusals.of_route("git ")}
    bad, where = Reason.BAD_REQUEST.sentence, "over https on port %DOWNSTREAM_LOCAL_PORT%"
    odd_path = f"{bad}: hosts disagree about what such a path means, so no rule can allow it\n"
    no_answer = (
        f"no answer from this host {where}: its name has no address, or one that the rule may not reach, or the "
        f"host refused or ended the connection, or does not speak TLS{upstream.NO_ANSWER if proxy else ''}\n"
        f"{http.MORE}"
    )
    for filter_, status, text in (
        (_by_policy("none"), 421, f"{bad}: it names another host than the TLS connection that it came in\n"),
        (_by_policy(_BAD_PATH), 400, odd_path),
        (refusals.of_route(_HIDDEN), 400, odd_path),
        (refusals.of_details(_NO_UPGRADE), 403, f"{bad}: it can become a WebSocket, and nothing else\n"),
        (refusals.of_details(refusals.NO_WAY), 403, f"{Reason.NO_WEBSOCKET.sentence}\n{http.MORE}"),
        (refusals.of_route(refusals.NO_RULE), 403, f"{Reason.NO_RULE.sentence} {where}\n{http.MORE}"),
        (refusals.of_status(403), 403, f"{Reason.PATH.sentence}\n{http.MORE}"),
        (refusals.of_details(injected.MISSING), 503, f"{Reason.NO_SECRET.sentence}\n"),
        (refusals.passing(refusals.HOST_NOT_TRUSTED), 503, f"{Reason.HOST_NOT_TRUSTED.sentence}\n"),
        (refusals.of_status(503), 503, no_answer),
    ):
        yield http.answering(filter_, text, status_code=status)


def _by_policy(name: str) -> Json:
    return refusals.of_details(f"rbac_access_denied_matched_policy[{name}]")


def table(policy: Policy, requests_per_second: int, headers: Mapping[str, str] = MappingProxyType({})) -> Json:
    """Return the table of routes of inspected names. `headers` maps secrets to lower-case headers."""
    hosts = [
        _host(pattern, scope, headers)
        for pattern, scope in sorted(policy.scopes.items())
        if any(rule.paths for rule in (*scope.inherited.values(), *scope.own.values()))
    ]
    others = {"name": refusals.NO_RULE, "domains": ["*"], "routes": [_NO_RULE]}
    return {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [*hosts, others],
        "request_headers_to_remove": [*HEADERS_REMOVED, http.WAITS],
        "typed_per_filter_config": http.paced(requests_per_second),
        "cluster_specifier_plugins": [_unless_upgrading(verify=verified) for verified in (True, False)],
    }


def _host(pattern: str, scope: RuleScope, headers: Mapping[str, str]) -> Json:
    inspected = [(port, rule, rule.paths) for (_, port), rule in sorted(scope.allowed.items()) if rule.paths]
    limited = any(paths.rules or paths.repositories for *_, paths in inspected)  # something is refused by its path
    routes: list[Json] = []
    for port, rule, paths in inspected:
        for route in _of_rule(rule, paths):
            route["match"]["filter_state"] = [{"key": PORT, "string_match": {"exact": str(port)}}]
            if paths.injection and "route" in route:
                header = headers.get(paths.injection.secret, DEFAULT_HEADER)
                by_git = route["name"].startswith(_named(rule, "git "))
                route.update(injected.of_route(paths.injection, header, git=by_git))
            routes.append(route)
    return {
        "name": pattern,
        "domains": [pattern],
        "routes": [*routes, _NO_RULE],
        **http.KEEPS_NO_CONTENT,
        **({"request_headers_to_remove": list(SECOND_PATHS)} if limited else {}),
    }


def _of_rule(rule: Rule, paths: Paths) -> Iterator[Json]:
    """Yield a rule's routes in the order of decision, equal to `Paths.decide`."""
    for repository in paths.repositories:
        yield from _of_git(rule, repository, lfs=paths.lfs)
    for repository in paths.repositories:
        yield _refuse(str(repository), _regex(repository.readings), body=_explanation(repository))
    hiding = [path for path in paths.rules if path.expression and path.denies]
    for path in paths.rules:
        if path.expression:
            while hiding:
                yield from _hiding(hiding.pop())
        yield from _of_path(rule, path)
    yield from _forward(rule, "others", _ANY) if paths.others else (_refuse("others", _ANY),)


def _of_git(rule: Rule, repository: Repository, *, lfs: bool) -> Iterator[Json]:
    """Yield the routes for git's requests: exact matches, with their query, which could be written twice."""
    for request in repository.requests(lfs=lfs):
        method = _method(request.method)
        match: Json = {"path_separated_prefix": request.target, "headers": [method]}
        if not request.below:
            path = request.target.partition("?")[0]
            exactly = {"name": ":path", "string_match": {"exact": request.target}}
            match = {"path": path, "headers": [method, exactly]}
        if request.allowed:
            yield from _forward(rule, request.words, match)
        else:
            yield _refuse(str(repository), match, body=_explanation(repository))


def _explanation(repository: Repository) -> str:
    may = "be fetched, not pushed to" if repository.access is Access.READ else "not be used like this"
    return f"clawker-fw: {repository.name} may {may}\n"


def _of_path(rule: Rule, path: PathRule) -> Iterator[Json]:
    exactly = [_path(with_query(expression)) for expression in path.expressions[:-1]]
    match = _match(path)
    for method, route_match in _matches(path, match, *exactly):
        if path.denies:
            yield _refuse(str(path), route_match)
        else:
            yield from _forward(rule, path.words(method), route_match)
    if path.limits and rule.paths and rule.paths.may_open(path):  # an expression takes Envoy 16 KB
        methods = "|".join(map(re.escape, path.methods))
        others = {"name": ":method", "string_match": _regex(methods), "invert_match": True}
        yield _refuse("others", {**_regex(path.readings), "headers": [others]})


def _hiding(path: PathRule) -> Iterator[Json]:
    """Yield the routes for what a host may read as something that an expression denies."""
    for _, match in _matches(path, _regex(path.readings), _path(f"[^?]*{HIDING}.*")):
        yield {"name": f"{_HIDDEN}{path}", "match": match, "direct_response": {"status": 400}}


def _matches(path: PathRule, match: Json, *headers: Json) -> Iterator[tuple[str, Json]]:
    """Yield each method of a path rule ("" for all), and what matches its requests."""
    for method in path.methods or ("",):
        named = [_method(method, ignore_case=path.denies)] if method else []
        yield method, {**match, **({"headers": [*named, *headers]} if named or headers else {})}


def _match(path: PathRule) -> Json:
    if path.expression:
        return _regex(path.expressions[-1])
    if path.path == "/":
        return _ANY
    if path.denies:
        return _regex(path.readings)
    if "%" in path.path:
        return _regex(f"{literal(path.path)}(?:/.*)?")
    return {"path_separated_prefix": path.path}


def _path(expression: str) -> Json:
    return {"name": ":path", "string_match": _regex(expression)}


def _method(method: str, *, ignore_case: bool = False) -> Json:
    return {"name": ":method", "string_match": {"exact": method, **({"ignore_case": True} if ignore_case else {})}}


def _forward(rule: Rule, words: str, match: Json) -> Iterator[Json]:
    """Yield the routes for allowed requests. A WebSocket has a separate one, over HTTP/1.1 (RFC 6455)."""
    verify = rule.paths is None or rule.paths.verify
    # Matching has removed the port from the Host header. This adds it again for the host.
    port = {} if rule.port == Protocol.HTTPS.default_port else {"host_rewrite": f"%REQ(:AUTHORITY)%:{rule.port}"}
    leading: Json = {"timeout": "0s", **port}
    if rule.paths and rule.paths.websocket:
        upgrading = {**match, "headers": [*match.get("headers", ()), _UPGRADE]}
        way = {"cluster": _way(verify=verify, upgrades=True), **leading}
        yield {"name": _named(rule, f"{WEBSOCKET}{words}"), "match": upgrading, "route": way}
    way = {"cluster_specifier_plugin": _way(verify=verify), **leading}
    yield {"name": _named(rule, words), "match": dict(match), "route": way}


def _unless_upgrading(*, verify: bool) -> Json:
    """Return the choice of a cluster: upgrades that no earlier route matches lead nowhere."""
    header = typed("upgrade", f"{TYPES}.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=_UPGRADE["name"])
    anything = {"safe_regex": {"google_re2": {}, "regex": ".*"}}
    asks = {"input": header, "value_match": anything}
    nowhere, leading = (
        {"action": extension(f"{_CHOOSING}.ClusterAction", "cluster", cluster=cluster)}
        for cluster in (_NO_WEBSOCKET, _way(verify=verify))
    )
    matchers = [{"predicate": {"single_predicate": asks}, "on_match": nowhere}]
    return {
        "extension": extension(
            f"{_CHOOSING}.MatcherClusterSpecifier",
            _way(verify=verify),
            cluster_matcher={"matcher_list": {"matchers": matchers}, "on_no_match": leading},
        )
    }


def _refuse(name: str, match: Json, body: str = "") -> Json:
    response: Json = {"status": 403, **({"body": {"inline_string": body}} if body else {})}
    return {"name": name, "match": dict(match), "direct_response": response}


_ANY: Json = {"prefix": "/"}
_NO_RULE = _refuse(refusals.NO_RULE, _ANY)


def _regex(expression: str) -> Json:
    return {"safe_regex": {"regex": expression}}
