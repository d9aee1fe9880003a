"""Envoy's hot files: one listener a port, one filter chain a rule, one route table a port.

Built as values and serialised, never templated. The layout keeps an update from cutting what it does not concern
(measured; docs/how-it-works.md): a port added or removed is a listener added or removed, a rule added or removed
is a filter chain, and the matcher may change freely. Field names are those of the Envoy v3 API reference.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import Any

from clawker_fw.model import Files
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Protocol, Rule
from clawker_fw.stack import container, templates

LISTENERS = "hot/lds/listeners.json"
GUARDED, EXEMPT = "guarded", "exempt"

MOST_CHAINS = 256
"""Up to so many rules a port have a filter chain each; beyond it, names share that many chains by hash."""

DNS_CACHE: Mapping[str, Any] = {
    "name": "world",
    "dns_lookup_family": "V4_ONLY",
    "max_hosts": 65536,
    "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "10s"},
    "typed_dns_resolver_config": {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        },
    },
}

_Json = dict[str, Any]
_TYPES = "type.googleapis.com/envoy"
_LOG_FIELDS = {
    "time": "%START_TIME%",
    "source": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "port": "%DOWNSTREAM_LOCAL_PORT%",
    "name": "%REQUESTED_SERVER_NAME%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
}
_HEADERS_REMOVED = (
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
)
"""What a proxy adds, and an agent could pretend, is nothing the world should see."""

_UPSTREAM_FIELDS = {"upstream": "%UPSTREAM_HOST%", "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%"}


def route_name(port: int) -> str:
    """Return what a port's route table, and its statistics, are called."""
    return f"http-{port}"


def render(rules: RuleSet, address: IPv4Address) -> tuple[Files, str]:
    """Return the hot files, routes before the listeners that use them, and the version they all carry.

    `address` is Envoy's on the agent network: who is on the way out can't come in.
    """
    routes = {route_name(port): _routes(port, rules.on(port, Protocol.HTTP)) for port in rules.ports}
    listeners = [_listener(address, port, rules.on(port, Protocol.HTTPS)) for port in rules.ports]
    version = templates.version_of(routes, listeners)
    files = {f"hot/rds/{name}.json": _response(version, [table]) for name, table in routes.items()}
    return {**files, LISTENERS: _response(version, listeners)}, version


def _response(version: str, resources: list[_Json]) -> bytes:
    """Serialise a DiscoveryResponse, the form in which Envoy reads resources from files."""
    document = {"version_info": version, "resources": resources}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def by_name(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Return each pattern (`a.test`, `*.a.test`) with the rule that decides it; an exact rule comes first."""
    patterns: dict[str, Rule] = {}
    for rule in sorted(rules, key=lambda rule: rule.destination.subtree):
        patterns.setdefault(rule.destination.name, rule)
        if rule.destination.subtree:
            patterns[f"*.{rule.destination.name}"] = rule
    return patterns


def _cluster(rule: Rule) -> str:
    return EXEMPT if rule.allow_private else GUARDED


# --- listeners: RFC 6066 server names, forwarded without decryption -------------------------------------------


def _listener(address: IPv4Address, port: int, rules: tuple[Rule, ...]) -> _Json:
    chains = _chain_names(rules)
    servers: dict[str, list[str]] = {}
    for pattern, rule in by_name(rules).items():
        servers.setdefault(chains[rule], []).append(pattern)
    clusters = {chains[rule]: _cluster(rule) for rule in rules}
    return {
        "@type": f"{_TYPES}.config.listener.v3.Listener",
        "name": f"port-{port}",
        "stat_prefix": f"port-{port}",
        "address": {"socket_address": {"address": str(address), "port_value": port}},
        "access_log": [_access_log({"response_flag_filter": {"flags": ["NR"]}}, _LOG_FIELDS)],
        "listener_filters": [
            _extension("envoy.filters.listener.tls_inspector", "filters.listener.tls_inspector.v3.TlsInspector"),
        ],
        "filter_chain_matcher": _chain_matcher(servers),
        "filter_chains": [
            {"name": "http", "filters": [_http_connection_manager(port)]},
            *({"name": chain, "filters": _tls_filters(port, clusters[chain])} for chain in sorted(servers)),
        ],
    }


def _chain_names(rules: tuple[Rule, ...]) -> dict[Rule, str]:
    """Return each rule's chain. A shared chain is named by what shares it.

    Removing a rule must end its connections and no others. Alone in its chain, it takes the chain with it; in a
    shared one, the chain gets another name, and only those who shared it are drained.
    """
    if len(rules) <= MOST_CHAINS:
        return {rule: f"tls {rule.destination} {_cluster(rule)}" for rule in rules}
    shared: dict[str, list[Rule]] = {}
    for rule in rules:
        bucket = hashlib.sha256(str(rule.destination).encode()).digest()[0] % (MOST_CHAINS // 2)
        shared.setdefault(f"tls {bucket} {_cluster(rule)}", []).append(rule)
    names: dict[Rule, str] = {}
    for chain, members in shared.items():
        version = templates.version_of([str(each.destination) for each in members])
        names |= dict.fromkeys(members, f"{chain} {version}")
    return names


def _chain_matcher(servers: Mapping[str, list[str]]) -> _Json:
    by_protocol: _Json = {"raw_buffer": {"action": _chain_action("http")}}
    if servers:
        names = _extension_of(
            "names",
            "type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher",
            domain_matchers=[
                {"domains": sorted(domains), "on_match": {"action": _chain_action(chain)}}
                for chain, domains in sorted(servers.items())
            ],
        )
        server_name = _matching_input("sni", "ServerNameInput")
        by_protocol["tls"] = {"matcher": {"matcher_tree": {"input": server_name, "custom_match": names}}}
    protocol = _matching_input("protocol", "TransportProtocolInput")
    return {"matcher_tree": {"input": protocol, "exact_match_map": {"map": by_protocol}}}


def _chain_action(chain: str) -> _Json:
    return _extension_of("chain", "type.googleapis.com/google.protobuf.StringValue", value=chain)


def _matching_input(name: str, kind: str) -> _Json:
    return _extension(name, f"matching.common_inputs.network.v3.{kind}")


def _tls_filters(port: int, cluster: str) -> list[_Json]:
    return [
        _extension(
            "envoy.filters.network.sni_dynamic_forward_proxy",
            "filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
            port_value=port,
            dns_cache_config=DNS_CACHE,
        ),
        _extension(
            "envoy.filters.network.tcp_proxy",
            "filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix=f"tls-{port}",
            cluster=cluster,
            access_log=[
                _access_log(
                    {"response_flag_filter": {"flags": ["UF", "UH", "URX", "DF"]}},
                    _LOG_FIELDS | _UPSTREAM_FIELDS,
                ),
            ],
        ),
    ]


# --- routes: the Host header (RFC 9110, section 7.2) ----------------------------------------------------------


def _http_connection_manager(port: int) -> _Json:
    """Return the filter for plain HTTP.

    The port in a Host header is taken off before it is matched, and the upstream port is the listener's own:
    `Host: allowed.test:2222` never reaches port 2222. No client address counts as internal, so that no agent can
    set the headers that steer Envoy.
    """
    name = route_name(port)
    folder = f"{container.VOLUME}/hot/rds"
    return _extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        rds={
            "route_config_name": name,
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": f"{folder}/{name}.json",
                    "watched_directory": {"path": folder},
                },
            },
        },
        http_filters=[
            _extension(
                "envoy.filters.http.set_filter_state",
                "filters.http.set_filter_state.v3.Config",
                on_request_headers=[
                    _filter_state("envoy.upstream.dynamic_host", "%REQ(:AUTHORITY)%"),
                    _filter_state("envoy.upstream.dynamic_port", str(port)),
                ],
            ),
            _extension(
                "envoy.filters.http.dynamic_forward_proxy",
                "filters.http.dynamic_forward_proxy.v3.FilterConfig",
                dns_cache_config=DNS_CACHE,
                allow_dynamic_host_from_filter_state=True,
            ),
            _extension("envoy.filters.http.router", "filters.http.router.v3.Router", suppress_envoy_headers=True),
        ],
        strip_any_host_port=True,
        strip_trailing_host_dot=True,
        use_remote_address=True,
        internal_address_config={"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]},
        skip_xff_append=True,
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        stream_idle_timeout="3600s",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        access_log=[
            _access_log(
                {
                    "or_filter": {
                        "filters": [
                            {
                                "status_code_filter": {
                                    "comparison": {
                                        "op": "EQ",
                                        "value": {"default_value": 403, "runtime_key": "clawker_fw.refused"},
                                    },
                                },
                            },
                            {"response_flag_filter": {"flags": ["UF", "UH", "URX", "DF"]}},
                        ],
                    },
                },
                {**_LOG_FIELDS, "name": "%REQ(:AUTHORITY)%"} | _UPSTREAM_FIELDS,
            ),
        ],
    )


def _filter_state(key: str, text: str) -> _Json:
    return {"object_key": key, "format_string": {"text_format_source": {"inline_string": text}}}


def _routes(port: int, rules: tuple[Rule, ...]) -> _Json:
    hosts: dict[str, list[str]] = {}
    for pattern, rule in by_name(rules).items():
        hosts.setdefault(_cluster(rule), []).append(pattern)
    # The port was taken off the Host header for matching; the origin sees it as the agent must have written it.
    host = {} if port == Protocol.HTTP.default_port else {"host_rewrite": f"%REQ(:AUTHORITY)%:{port}"}
    allowed = [
        {
            "name": cluster,
            "domains": sorted(domains),
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s", **host}}],
        }
        for cluster, domains in sorted(hosts.items())
    ]
    sentence = f"clawker-fw: no rule allows this host over http on port {port}\n"
    refused = {
        "name": "refused",
        "domains": ["*"],
        "routes": [
            {
                "match": {"prefix": "/"},
                "direct_response": {"status": 403, "body": {"inline_string": sentence}},
            },
        ],
    }
    return {
        "@type": f"{_TYPES}.config.route.v3.RouteConfiguration",
        "name": route_name(port),
        "virtual_hosts": [*allowed, refused],
        "request_headers_to_remove": list(_HEADERS_REMOVED),
    }


def _access_log(filter_: _Json, fields: Mapping[str, str]) -> _Json:
    """Write refusals and failures to standard output, one JSON object a line."""
    return {
        **_extension(
            "envoy.access_loggers.stdout",
            "access_loggers.stream.v3.StdoutAccessLog",
            log_format={"json_format": fields},
        ),
        "filter": filter_,
    }


def _extension(name: str, kind: str, **config: Any) -> _Json:  # noqa: ANN401 - JSON
    return _extension_of(name, f"{_TYPES}.extensions.{kind}", **config)


def _extension_of(name: str, type_: str, **config: Any) -> _Json:  # noqa: ANN401 - JSON
    return {"name": name, "typed_config": {"@type": type_, **config}}
