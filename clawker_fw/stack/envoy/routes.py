"""Envoy's one table of routes, for plain HTTP on every port.

Each name belongs to a virtual host, whose routes match the port that the agent has connected to. All ports share
one table, because each file that Envoy watches takes an inotify instance, and a user has 128 of them (inotify(7)).
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
"""Headers that a proxy adds and an agent could forge. Origins should not see them."""

Clusters = tuple[tuple[int, str], ...]
"""The ports on which a name is allowed, each with the cluster for its requests."""


def table(rules: RuleSet) -> Json:
    """Return the route table. Names with the same ports and clusters share a virtual host."""
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
    """Return each pattern (`a.test`, `*.a.test`) with what is allowed for names whose most specific pattern it is.

    Envoy only uses the virtual host with the most specific pattern. It must therefore include what rules for
    parent domains allow on further ports.
    """
    exact: dict[str, dict[int, Rule]] = {}
    below: dict[str, dict[int, Rule]] = {}
    for rule in (each for each in rules.rules if each.protocol is Protocol.HTTP):
        kind = below if rule.destination.subtree else exact
        kind.setdefault(rule.destination.name, {})[rule.port] = rule
    inherited: dict[str, dict[int, Rule]] = {"": {}}

    def subtree(name: str) -> Mapping[int, Rule]:
        """Return the rules for subdomains of a name. Its own rules override those of its parent domains."""
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
    """Return the cluster for a rule."""
    return EXEMPT if rule.allow_private else GUARDED


def _forward(port: int, cluster: str) -> Json:
    # Matching has stripped the port from the Host header. It is added again for the origin.
    host = {} if port == Protocol.HTTP.default_port else {"host_rewrite": f"%REQ(:AUTHORITY)%:{port}"}
    state = [{"key": PORT, "string_match": {"exact": str(port)}}]
    return {
        "match": {"prefix": "/", "filter_state": state},
        "route": {"cluster": cluster, "timeout": "0s", **host},
    }


def _refuse() -> Json:
    return {"match": {"prefix": "/"}, "direct_response": {"status": 403}}
