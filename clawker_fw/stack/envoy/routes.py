"""Envoy's one table of routes, for plain HTTP on every port.

Each name belongs to a virtual host, whose routes match the port that the agent has connected to. They decide
only whether a request is forwarded; its rule's filter chain decides which addresses it may reach (http.py). All
ports share one table, because each file that Envoy watches takes an inotify instance, and a user has 128 of them
(inotify(7)).
"""

from collections.abc import Iterable

from clawker_fw.rules.own_page import PAGE, PAGE_PORT
from clawker_fw.rules.policy import Key, Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.envoy.messages import PORT, THROUGH_RULES, TYPES, Json, endpoint

NAME = "http"

PATH = "rds/routes.json"
"""Where the table lies, below `hot/`."""

_HEADERS_REMOVED = (
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
)
"""Headers that a proxy adds and an agent could forge. Origins should not see them."""

DENIED = "denied"
"""The route for what a rule denies within what another one allows."""

TO_PAGE = "page"
"""The route of the page on which an agent reads what was refused to it, and the cluster that leads there.

Envoy says whose request it is. The recorder beside it answers (go/internal/page).
"""

PAGE_SOCKET = "/tmp/page.sock"  # noqa: S108 - inside the container; a socket, because no agent can reach one


def table(policy: Policy) -> Json:
    """Return the route table. Names on which the same ports are allowed and denied share a virtual host.

    Envoy only uses the virtual host with the most specific pattern. It must therefore include what rules for
    parent domains allow on further ports.
    """
    hosts: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for pattern, scope in policy.scopes.items():
        if pattern != PAGE and any(protocol is Protocol.HTTP for protocol, _ in scope.own):
            denied = {key: rule for key, rule in scope.own.items() if rule.denies}
            hosts.setdefault((_ports(scope.allowed), _ports(denied)), []).append(pattern)
    known = [
        {
            "name": " ".join([*map(str, allowed), *(f"{DENIED}-{port}" for port in denied)]),
            "domains": sorted(domains),
            "routes": [*map(_forward, allowed), *map(_deny, denied), _refuse()],
        }
        for (allowed, denied), domains in sorted(hosts.items())
    ]
    return {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [
            *known,
            {"name": TO_PAGE, "domains": [PAGE], "routes": [_page(), _refuse()]},
            {"name": "refused", "domains": ["*"], "routes": [_refuse()]},
        ],
        "request_headers_to_remove": list(_HEADERS_REMOVED),
    }


def _ports(keys: Iterable[Key]) -> tuple[int, ...]:
    return tuple(sorted(port for protocol, port in keys if protocol is Protocol.HTTP))


def _on(port: int) -> Json:
    return {"prefix": "/", "filter_state": [{"key": PORT, "string_match": {"exact": str(port)}}]}


def _forward(port: int) -> Json:
    # Matching has stripped the port from the Host header. It is added again for the origin.
    host = {} if port == Protocol.HTTP.default_port else {"host_rewrite": f"%REQ(:AUTHORITY)%:{port}"}
    return {"match": _on(port), "route": {"cluster": THROUGH_RULES, "timeout": "0s", **host}}


def _deny(port: int) -> Json:
    return {"name": DENIED, "match": _on(port), "direct_response": {"status": 403}}


def _page() -> Json:
    """Return the route of the page. What the agent has sent under the header's name is replaced."""
    agent = {"key": "x-clawker-fw-agent", "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}
    return {
        "name": TO_PAGE,
        "match": _on(PAGE_PORT),
        "route": {"cluster": TO_PAGE, "timeout": "5s"},
        "request_headers_to_add": [{"header": agent, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def page_cluster() -> Json:
    """Return the cluster of the bootstrap that leads to the recorder.

    Its connections have no bound, because all agents would share it. The recorder ends each with its answer, and
    answers an agent only so often.
    """
    return {
        "name": TO_PAGE,
        "type": "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": bounds.BUFFER,
        **endpoint(TO_PAGE, {"pipe": {"path": PAGE_SOCKET}}),
        "circuit_breakers": bounds.unbounded(),
    }


def _refuse() -> Json:
    return {"match": {"prefix": "/"}, "direct_response": {"status": 403}}
