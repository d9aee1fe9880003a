"""Envoy's one table of routes, for plain HTTP on every port.

Each name belongs to a virtual host, whose routes match the port that the agent has connected to. They decide
only whether a request is forwarded; its rule's filter chain decides which addresses it may reach (http.py). All
ports share one table, because each file that Envoy watches takes an inotify instance, and a user has 128 of them
(inotify(7)).
"""

from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Protocol
from clawker_fw.stack.envoy.messages import PORT, THROUGH_RULES, TYPES, Json

NAME = "http"

_HEADERS_REMOVED = (
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
)
"""Headers that a proxy adds and an agent could forge. Origins should not see them."""

Ports = tuple[int, ...]
"""The ports on which a name is allowed."""


def table(rules: RuleSet) -> Json:
    """Return the route table. Names with the same ports share a virtual host."""
    hosts: dict[Ports, list[str]] = {}
    for pattern, ports in _patterns(rules).items():
        hosts.setdefault(ports, []).append(pattern)
    allowed = [
        {
            "name": " ".join(str(port) for port in ports),
            "domains": sorted(domains),
            "routes": [*(_forward(port) for port in ports), _refuse()],
        }
        for ports, domains in sorted(hosts.items())
    ]
    return {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [*allowed, {"name": "refused", "domains": ["*"], "routes": [_refuse()]}],
        "request_headers_to_remove": list(_HEADERS_REMOVED),
    }


def _patterns(rules: RuleSet) -> dict[str, Ports]:
    """Return each pattern (`a.test`, `*.a.test`) with the ports on which names are allowed that match it best.

    Envoy only uses the virtual host with the most specific pattern. It must therefore include what rules for
    parent domains allow on further ports.
    """
    exact: dict[str, set[int]] = {}
    below: dict[str, set[int]] = {}
    for rule in (each for each in rules.rules if each.protocol is Protocol.HTTP):
        kind = below if rule.destination.subtree else exact
        kind.setdefault(rule.destination.name, set()).add(rule.port)
    inherited: dict[str, frozenset[int]] = {"": frozenset()}

    def subtree(name: str) -> frozenset[int]:
        """Return the ports for subdomains of a name."""
        if name not in inherited:
            inherited[name] = subtree(name.partition(".")[2]) | below.get(name, set())
        return inherited[name]

    patterns = {name: subtree(name) | exact.get(name, set()) for name in (*exact, *below)}
    patterns |= {f"*.{name}": subtree(name) for name in below}
    return {pattern: tuple(sorted(ports)) for pattern, ports in patterns.items()}


def _forward(port: int) -> Json:
    # Matching has stripped the port from the Host header. It is added again for the origin.
    host = {} if port == Protocol.HTTP.default_port else {"host_rewrite": f"%REQ(:AUTHORITY)%:{port}"}
    state = [{"key": PORT, "string_match": {"exact": str(port)}}]
    return {
        "match": {"prefix": "/", "filter_state": state},
        "route": {"cluster": THROUGH_RULES, "timeout": "0s", **host},
    }


def _refuse() -> Json:
    return {"match": {"prefix": "/"}, "direct_response": {"status": 403}}
