"""Envoy's one table of routes, for plain HTTP on every port.

Each name belongs to a virtual host, whose routes match the port that the agent has connected to. They decide
only whether a request is forwarded; its rule's filter chain decides which addresses it may reach (http.py). All
ports share one table, because each file that Envoy watches takes an inotify instance, and a user has 128 of them
(inotify(7)).
"""

from collections.abc import Iterator
from typing import NamedTuple

from clawker_fw.rules.own_page import PAGE, PAGE_PORT
from clawker_fw.rules.policy import Policy, RuleScope
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


class _Ports(NamedTuple):
    """The ports on which a name is allowed, and those of them that names above it have and it is denied."""

    allowed: tuple[int, ...]
    denied: tuple[int, ...]

    @classmethod
    def of(cls, scope: RuleScope) -> "_Ports":
        allowed = (port for protocol, port in scope.allowed if protocol is Protocol.HTTP)
        denied = (
            port for (protocol, port), rule in scope.own.items() if protocol is Protocol.HTTP and rule.denies
        )
        return cls(tuple(sorted(allowed)), tuple(sorted(denied)))

    def __str__(self) -> str:
        return " ".join([*map(str, self.allowed), *(f"{DENIED}-{port}" for port in self.denied)])


def table(policy: Policy) -> Json:
    """Return the route table. Names with the same ports share a virtual host."""
    hosts: dict[_Ports, list[str]] = {}
    for pattern, ports in _patterns(policy):
        if pattern != PAGE:
            hosts.setdefault(ports, []).append(pattern)
    known = [
        {
            "name": str(ports),
            "domains": sorted(domains),
            "routes": [*map(_forward, ports.allowed), *map(_deny, ports.denied), _refuse()],
        }
        for ports, domains in sorted(hosts.items())
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


def _patterns(policy: Policy) -> Iterator[tuple[str, _Ports]]:
    """Yield each pattern (`a.test`, `*.a.test`) with the ports of names that match it best.

    Envoy only uses the virtual host with the most specific pattern. It must therefore include what rules for
    parent domains allow on further ports.
    """
    patterns = {pattern for port in policy.rules.ports for pattern in policy.patterns(Protocol.HTTP, port)}
    for pattern in patterns:
        yield pattern, _Ports.of(policy.scopes[pattern])


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
