"""Envoy's listeners: one a port, one filter chain a rule, and one chain for plain HTTP that leads to the routes.

Built as values and serialised, never templated. The layout keeps an update from cutting what it does not concern
(measured; docs/how-it-works.md): a port added or removed is a listener added or removed, a rule added or removed
is a filter chain, and the matcher may change freely. Field names are those of the Envoy v3 API reference.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Protocol, Rule
from clawker_fw.stack import container
from clawker_fw.stack.envoy import bounds, refusals, routes
from clawker_fw.stack.envoy.messages import (
    DNS_CACHE,
    HOST_NAME,
    PORT,
    TYPES,
    Json,
    extension,
    filter_state,
    typed,
)

MOST_CHAINS = 256
"""Up to so many rules a port have a filter chain each; beyond it, names share that many chains by hash."""


def listeners(rules: RuleSet, address: IPv4Address, routes_path: str) -> list[Json]:
    """Return a listener for each port.

    `address` is Envoy's on the agent network: from the way out nobody comes in. `routes_path` is where the route
    table lies, below `hot/`.
    """
    return [_listener(address, port, rules.on(port, Protocol.HTTPS), routes_path) for port in rules.ports]


def by_name(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Return each pattern (`a.test`, `*.a.test`) with the rule that decides it; an exact rule comes first."""
    patterns: dict[str, Rule] = {}
    for rule in sorted(rules, key=lambda rule: rule.destination.subtree):
        patterns.setdefault(rule.destination.name, rule)
        if rule.destination.subtree:
            patterns[f"*.{rule.destination.name}"] = rule
    return patterns


# --- TLS: RFC 6066 server names, forwarded without decryption -------------------------------------------------


def _listener(address: IPv4Address, port: int, rules: tuple[Rule, ...], routes_path: str) -> Json:
    chains = _chain_names(rules)
    servers: dict[str, list[str]] = {}
    for pattern, rule in by_name(rules).items():
        servers.setdefault(chains[rule], []).append(pattern)
    clusters = {chains[rule]: routes.cluster_of(rule) for rule in rules}
    return {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": f"port-{port}",
        "stat_prefix": f"port-{port}",
        "per_connection_buffer_limit_bytes": bounds.BUFFER,
        "listener_filters_timeout": f"{bounds.HELLO_SECONDS}s",
        "address": {"socket_address": {"address": str(address), "port_value": port}},
        "access_log": refusals.of_listener(),
        "listener_filters": [
            extension("envoy.filters.listener.tls_inspector", "filters.listener.tls_inspector.v3.TlsInspector"),
        ],
        "filter_chain_matcher": _chain_matcher(servers),
        "filter_chains": [
            {"name": "http", "filters": _http_filters(port, routes_path)},
            *({"name": chain, "filters": _tls_filters(port, clusters[chain])} for chain in sorted(servers)),
        ],
    }


def _chain_names(rules: tuple[Rule, ...]) -> dict[Rule, str]:
    """Return each rule's chain. A shared chain is named by what shares it.

    Removing a rule must end its connections and no others. Alone in its chain, it takes the chain with it; in a
    shared one, the chain gets another name, and only those who shared it are drained.
    """
    if len(rules) <= MOST_CHAINS:
        return {rule: f"tls {rule.destination} {routes.cluster_of(rule)}" for rule in rules}
    shared: dict[str, list[Rule]] = {}
    for rule in rules:
        bucket = hashlib.sha256(str(rule.destination).encode()).digest()[0] % (MOST_CHAINS // 2)
        shared.setdefault(f"tls {bucket} {routes.cluster_of(rule)}", []).append(rule)
    names: dict[Rule, str] = {}
    for chain, members in shared.items():
        sharing = json.dumps([str(each.destination) for each in members])
        names |= dict.fromkeys(members, f"{chain} {hashlib.sha256(sharing.encode()).hexdigest()[:16]}")
    return names


def _chain_matcher(servers: Mapping[str, list[str]]) -> Json:
    by_protocol: Json = {"raw_buffer": {"action": _chain_action("http")}}
    if servers:
        names = typed(
            "names",
            "type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher",
            domain_matchers=[
                {"domains": sorted(domains), "on_match": {"action": _chain_action(chain)}}
                for chain, domains in sorted(servers.items())
            ],
        )
        server_name = _matching_input("sni", "ServerNameInput")
        is_host_name = {
            "and_matcher": {
                "predicate": [
                    {
                        "single_predicate": {
                            "input": server_name,
                            "value_match": {"safe_regex": {"regex": regex, "google_re2": {}}},
                        }
                    }
                    for regex in HOST_NAME
                ]
            }
        }
        by_name = {"matcher": {"matcher_tree": {"input": server_name, "custom_match": names}}}
        by_protocol["tls"] = {
            "matcher": {"matcher_list": {"matchers": [{"predicate": is_host_name, "on_match": by_name}]}}
        }
    protocol = _matching_input("protocol", "TransportProtocolInput")
    return {"matcher_tree": {"input": protocol, "exact_match_map": {"map": by_protocol}}}


def _chain_action(chain: str) -> Json:
    return typed("chain", "type.googleapis.com/google.protobuf.StringValue", value=chain)


def _matching_input(name: str, kind: str) -> Json:
    return extension(name, f"matching.common_inputs.network.v3.{kind}")


def _tls_filters(port: int, cluster: str) -> list[Json]:
    return [
        extension(
            "envoy.filters.network.sni_dynamic_forward_proxy",
            "filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
            port_value=port,
            dns_cache_config=DNS_CACHE,
        ),
        extension(
            "envoy.filters.network.tcp_proxy",
            "filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix=f"tls-{port}",
            cluster=cluster,
        ),
    ]


# --- plain HTTP: the Host header (RFC 9110, section 7.2) ------------------------------------------------------


def _http_filters(port: int, routes_path: str) -> list[Json]:
    """Return the filters for plain HTTP: first of all the port is noted, by which the routes are told apart."""
    return [
        extension(
            "envoy.filters.network.set_filter_state",
            "filters.network.set_filter_state.v3.Config",
            on_new_connection=[filter_state(PORT, str(port), factory_key="envoy.string")],
        ),
        _http_connection_manager(port, routes_path),
    ]


def _http_connection_manager(port: int, routes_path: str) -> Json:
    """Return the filter for plain HTTP.

    The port in a Host header is taken off before it is matched, and the upstream port is the listener's own:
    `Host: allowed.test:2222` never reaches port 2222. No client address counts as internal, so that no agent can
    set the headers that steer Envoy.
    """
    path = f"{container.VOLUME}/{container.HOT}{routes_path}"
    refused = {"status_code_filter": {"comparison": {"value": {"default_value": 403, "runtime_key": "refused"}}}}
    sentence = "clawker-fw: no rule allows this host over http on port %DOWNSTREAM_LOCAL_PORT%\n"
    return extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=routes.NAME,
        rds={
            "route_config_name": routes.NAME,
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": path,
                    "watched_directory": {"path": path.rpartition("/")[0]},
                },
            },
        },
        http_filters=[
            _host_names_only(),
            extension(
                "envoy.filters.http.set_filter_state",
                "filters.http.set_filter_state.v3.Config",
                on_request_headers=[
                    filter_state(
                        "envoy.upstream.dynamic_host",
                        # As in TLS, where Envoy does it by itself: the cache of names tells upper case from lower.
                        "%CEL(request.headers[':authority'].lowerAscii())%",
                        extension(
                            "envoy.formatter.cel",
                            "formatter.cel.v3.Cel",
                            cel_config={"enable_string_functions": True},
                        ),
                    ),
                    filter_state("envoy.upstream.dynamic_port", str(port)),
                ],
            ),
            extension(
                "envoy.filters.http.dynamic_forward_proxy",
                "filters.http.dynamic_forward_proxy.v3.FilterConfig",
                dns_cache_config=DNS_CACHE,
                allow_dynamic_host_from_filter_state=True,
            ),
            extension("envoy.filters.http.router", "filters.http.router.v3.Router", suppress_envoy_headers=True),
        ],
        strip_any_host_port=True,
        strip_trailing_host_dot=True,
        use_remote_address=True,
        internal_address_config={"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]},
        skip_xff_append=True,
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        stream_idle_timeout="3600s",
        request_headers_timeout=f"{bounds.HELLO_SECONDS}s",
        max_request_headers_kb=bounds.HEADERS_KIBIBYTES,
        http2_protocol_options={
            "max_concurrent_streams": bounds.STREAMS,
            "initial_stream_window_size": 2 * bounds.BUFFER,
            "initial_connection_window_size": 16 * bounds.BUFFER,
        },
        upgrade_configs=[{"upgrade_type": "websocket"}],
        local_reply_config={
            "mappers": [
                {
                    "filter": refused,
                    "body_format_override": {"text_format_source": {"inline_string": sentence}},
                },
            ],
        },
        access_log=refusals.of_http(),
    )


def _host_names_only() -> Json:
    """Return the filter that refuses every Host that is no host name, whatever the routes say."""
    other = [
        {
            "header": {
                "name": ":authority",
                "string_match": {"safe_regex": {"regex": regex}},
                "invert_match": True,
            }
        }
        for regex in HOST_NAME
    ]
    return extension(
        "envoy.filters.http.rbac",
        "filters.http.rbac.v3.RBAC",
        rules={
            "action": "DENY",
            "policies": {
                "no-host-name": {"permissions": [{"or_rules": {"rules": other}}], "principals": [{"any": True}]}
            },
        },
    )
