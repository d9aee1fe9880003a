"""The proxy sibling: its bootstrap, its network, and how it is confined. The listeners are in `listeners.py`."""

import json

from clawker_fw.model import Files, Role, Shape
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack import container, listeners, templates
from clawker_fw.stack.release import Release
from clawker_fw.stack.topology import PRIVATE_RANGES, SPECIAL_RANGES, Addressing, network_names

ADMIN_SOCKET = "/tmp/admin.sock"  # noqa: S108 - inside the container; a socket, because no agent can reach one

_GUARDED_TABLE, _EXEMPT_TABLE = 101, 102
_DRAIN_SECONDS = 5
"""How long connections of a removed rule live on, and how long a draining Envoy still accepts."""


def shape(project: str, addressing: Addressing, slot: int) -> Shape:
    """Return the container's shape: on both networks, at reserved addresses."""
    names = network_names(project)
    return container.shape(
        [
            "/usr/local/bin/envoy",
            "--config-path",
            f"{container.VOLUME}/boot/bootstrap.yaml",
            "--reject-unknown-dynamic-fields",
            "--concurrency",
            "2",
            "--drain-time-s",
            str(_DRAIN_SECONDS),
            "--disable-hot-restart",
            "--log-level",
            "warning",
            # ServerNameMatcher is work in progress to Envoy, which says so once for each filter chain.
            "--component-log-level",
            "misc:error",
        ],
        {
            names[Role.AGENTS]: str(addressing.envoy(slot)),
            names[Role.EGRESS]: str(addressing.egress_primary(slot)),
        },
        memory_mebibytes=1024,
        sysctls={},
    )


def boot(release: Release, project: str, addressing: Addressing, slot: int) -> Files:
    """Return the files read once, at start."""
    folder, _, _ = listeners.LISTENERS.rpartition("/")
    view = {
        "admin_socket": ADMIN_SOCKET,
        "node": f"{project}-envoy",
        "listeners_path": f"{container.VOLUME}/{listeners.LISTENERS}",
        "listeners_folder": f"{container.VOLUME}/{folder}",
        "dns_cache": listeners.DNS_CACHE,
        "clusters": [
            {"name": listeners.GUARDED, "source": str(addressing.guarded(slot))},
            {"name": listeners.EXEMPT, "source": str(addressing.exempt(slot))},
        ],
    }
    return {
        "boot/bootstrap.yaml": templates.render(release, "bootstrap.yaml.j2", view),
        "boot/sibling.json": json.dumps(_network(addressing, slot), indent=1, sort_keys=True).encode(),
    }


def hot(rules: RuleSet, addressing: Addressing, slot: int) -> tuple[Files, str]:
    """Return the files re-read while running, in the order in which they go into place, and their version."""
    return listeners.render(rules, addressing.envoy(slot))


def resources(rules: RuleSet) -> tuple[str, ...]:
    """Return what must be live at the version: the listeners, and each port's routes."""
    return ("lds/listeners", *(f"rds/{listeners.route_name(port)}" for port in rules.ports))


def _network(addressing: Addressing, slot: int) -> dict[str, object]:
    """Return what `fwctl serve` makes of the network: two further sources, each with its own routing table.

    A table that knows the default route and nothing else refuses whatever is not the world, at connect, for
    every address that is tried. The exempt source may reach private ranges and the egress network, but neither
    the agents nor any address of ours.
    """
    agents, egress = addressing.agents, addressing.egress
    refused_to_guarded = {*SPECIAL_RANGES, *PRIVATE_RANGES, agents, egress}
    own = {f"{address}/32" for address in addressing.own_egress_addresses}
    refused_to_exempt = {str(network) for network in (*SPECIAL_RANGES, agents)} | own
    common = {"gateway": str(addressing.egress_gateway), "subnet": str(egress)}
    guarded, exempt = str(addressing.guarded(slot)), str(addressing.exempt(slot))
    return {
        "sibling": "envoy",
        "addresses": [{"address": address, "subnet": str(egress)} for address in (guarded, exempt)],
        "tables": [
            {
                **common,
                "from": guarded,
                "table": _GUARDED_TABLE,
                "connected": False,
                "unreachable": sorted(str(network) for network in refused_to_guarded),
            },
            {
                **common,
                "from": exempt,
                "table": _EXEMPT_TABLE,
                "connected": True,
                "unreachable": sorted(refused_to_exempt),
            },
        ],
    }
