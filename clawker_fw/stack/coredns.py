"""The resolver sibling: its Corefile, its zone, its place on the agent network."""

import json
from ipaddress import IPv4Address

from clawker_fw.model import Files, Role, Shape
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack import container, templates, zone
from clawker_fw.stack.release import Release
from clawker_fw.stack.topology import Addressing, network_names

RESOURCES = ("zone",)

_RELOAD_MILLISECONDS = 50
"""How often CoreDNS looks at the zone file: 0.1 % of a core, and a change is live within a tenth of a second."""


def shape(project: str, addressing: Addressing, slot: int) -> Shape:
    """Return the container's shape. It is on the agent network only: it has no way out.

    The two ARP settings keep the service address in one place while a replacement takes it over: an address
    given up (host scope) is answered for no longer, and our own requests never carry it as their sender
    (Linux, Documentation/networking/ip-sysctl).
    """
    return container.shape(
        ["/coredns", "-conf", f"{container.VOLUME}/boot/Corefile"],
        {network_names(project)[Role.AGENTS]: str(addressing.coredns(slot))},
        memory_mebibytes=512,
        sysctls={"net.ipv4.conf.all.arp_announce": "2", "net.ipv4.conf.all.arp_ignore": "3"},
    )


def boot(release: Release, addressing: Addressing) -> Files:
    """Return the files read once, at start."""
    view = {"zone_path": f"{container.VOLUME}/{container.ZONE}", "reload_milliseconds": _RELOAD_MILLISECONDS}
    sibling = {
        "sibling": "coredns",
        "service": {"address": str(addressing.service), "subnet": str(addressing.agents)},
    }
    return {
        "boot/Corefile": templates.render(release, "Corefile.j2", view),
        "boot/sibling.json": json.dumps(sibling, indent=1, sort_keys=True).encode(),
    }


def hot(release: Release, rules: RuleSet, envoy: IPv4Address) -> tuple[Files, str]:
    """Return the files re-read while running, and their version."""
    owners = zone.allowed_owners(rules)
    version = templates.version_of(templates.source(release, "zone.j2"), owners, str(envoy), zone.TTL)
    return {container.ZONE: templates.render(release, "zone.j2", zone.view(owners, envoy, version))}, version
