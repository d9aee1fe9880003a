"""Envoy's one table of routes, for plain HTTP on every port.

A name is a virtual host, and the port that an agent has connected to chooses among its routes. One table for all
ports, because each file that Envoy watches is an inotify instance, of which a user has 128 (inotify(7)).
"""

from collections.abc import Mapping

from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Protocol, Rule
from clawker_fw.stack.envoy.messages import EXEMPT, GUARDED, PORT, TYPES, Json

NAME = "http"

_HEADERS_REMOVED = (
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
)
"""What a proxy adds, and an agent could pretend, is nothing the world should see."""

Clusters = tuple[tuple[int, str], ...]
"""The ports on which a name is allowed, each with the cluster that its requests go to."""


def table(rules: RuleSet) -> Json:
    """Return the route table. Names that are allowed alike share a virtual host; every other host is refused."""
    hosts: dict[Clusters, list[str]] = {}
    for pattern, clusters in _patterns(rules).items():
        hosts.setdefault(clusters, []).append(pattern)
    allowed = [
        {
            "name": " ".join(f"{cluster}:{port}" for port, cluster in clusters),
            "domains": sorted(domains),
            "routes": [*(_forward(port, cluster) for port, cluster in clusters), _refuse()],
        }
        for clusters, domains in sorted(hosts.items())
    ]
    return {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [*allowed, {"name": "refused", "domains": ["*"], "routes": [_refuse()]}],
        "request_headers_to_remove": list(_HEADERS_REMOVED),
    }


def _patterns(rules: RuleSet) -> dict[str, Clusters]:
    """Return each pattern (`a.test`, `*.a.test`) with what is allowed for the names to which it is the closest.

    Envoy looks at one virtual host only, the one with the closest pattern, so this has to hold what rules for
    names above it allow on further ports.
    """
    exact: dict[str, dict[int, Rule]] = {}
    below: dict[str, dict[int, Rule]] = {}
    for rule in (each for each in rules.rules if each.protocol is Protocol.HTTP):
        kind = below if rule.destination.subtree else exact
        kind.setdefault(rule.destination.name, {})[rule.port] = rule
    inherited: dict[str, dict[int, Rule]] = {"": {}}

    def subtree(name: str) -> Mapping[int, Rule]:
        """Return the rules for what is below a name: its own before those of the names above it."""
        if name not in inherited:
            above = subtree(name.partition(".")[2])
            inherited[name] = {**above, **below[name]} if name in below else dict(above)
        return inherited[name]

    patterns = {name: {**subtree(name), **exact.get(name, {})} for name in (*exact, *below)}
    patterns |= {f"*.{name}": {**subtree(name)} for name in below}
    return {
        pattern: tuple(sorted((port, cluster_of(rule)) for port, rule in ports.items()))
        for pattern, ports in patterns.items()
    }


def cluster_of(rule: Rule) -> str:
    """Return the cluster for what a rule allows."""
    return EXEMPT if rule.allow_private else GUARDED


def _forward(port: int, cluster: str) -> Json:
    # The port was taken off the Host header for matching; the origin sees it as the agent must have written it.
    host = {} if port == Protocol.HTTP.default_port else {"host_rewrite": f"%REQ(:AUTHORITY)%:{port}"}
    state = [{"key": PORT, "string_match": {"exact": str(port)}}]
    return {
        "match": {"prefix": "/", "filter_state": state},
        "route": {"cluster": cluster, "timeout": "0s", **host},
    }


def _refuse() -> Json:
    return {"match": {"prefix": "/"}, "direct_response": {"status": 403}}
