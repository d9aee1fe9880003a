"""The resolver sibling: its Corefile, its list of names, its place on the agent network."""

import json
from ipaddress import IPv4Address

from clawker_fw.model import Files, Role, Shape, Sibling
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack import container, templates
from clawker_fw.stack.files import public
from clawker_fw.stack.release import Release
from clawker_fw.stack.resources import SIBLING, Resource, declaration
from clawker_fw.stack.topology import Addressing, network_names

TTL = 1
"""Seconds that an answer, or a refusal, may be kept: how fast a replaced Envoy takes over."""

_POLICY = Resource("policy", "policy/names.json", hashed=True)
_EYE = Resource("eye", container.EYE.removeprefix(container.HOT))

RESOURCES = (_EYE, _POLICY)
"""The first is for the helper alone, which sees how Envoy refuses agents: at which address and ports."""

POLICY = container.HOT + _POLICY.path

_SOCKET = "/tmp/policy.sock"  # noqa: S108 - inside the container; a socket, because no agent can reach one
_ENVOY = "envoy"

_SETTINGS = {"arp_announce": 2, "arp_ignore": 3}
"""These keep the service address in one place while a replacement takes it over: an address given up (host scope)
is answered for no longer, and our own requests never carry it as their sender (Linux, networking/ip-sysctl).
"""


def shape(project: str, addressing: Addressing, slot: int) -> Shape:
    """Return the container's shape. It is on the agent network only: it has no way out."""
    return container.shape(
        ["/coredns", "-conf", f"{container.VOLUME}/boot/Corefile"],
        {network_names(project)[Role.AGENTS]: str(addressing.coredns(slot))},
        memory_mebibytes=512,
        settings=_SETTINGS,
    )


def boot(release: Release, addressing: Addressing, slot: int) -> Files:
    """Return the files read once, at start."""
    view = {"policy_path": f"{container.VOLUME}/{POLICY}", "policy_socket": _SOCKET}
    interface = {"address": str(addressing.coredns(slot)), "subnet": str(addressing.agents)}
    sibling = {
        **container.network(Sibling.COREDNS, [interface], _SETTINGS),
        "service": {"address": str(addressing.service), "subnet": str(addressing.agents)},
        "resources": declaration(RESOURCES),
    }
    return {
        "boot/Corefile": public(templates.render(release, "Corefile.j2", view)),
        SIBLING: public(json.dumps(sibling, indent=1, sort_keys=True).encode()),
    }


def hot(rules: RuleSet, envoy: IPv4Address) -> Files:
    """Return the files re-read while running: above all the list that the policy plugin answers from.

    For each name it says what holds at the name and what holds below it; the most specific entry decides.
    Addresses are named by what they stand for, so that another Envoy changes one line.
    """
    names: dict[str, dict[str, str]] = {}
    for rule in rules.rules:
        entry = names.setdefault(rule.destination.name, {"at": _ENVOY})
        if rule.destination.subtree:
            entry["below"] = _ENVOY
    document = {"ttl": TTL, "addresses": {_ENVOY: str(envoy)}, "names": names}
    eye = {"address": str(envoy), "ports": list(rules.ports)}
    return {
        container.EYE: public(json.dumps(eye, sort_keys=True, separators=(",", ":")).encode()),
        POLICY: public(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()),
    }


def envoy_address(files: Files) -> str:
    """Return the address to which a resolver with these files sends agents, "" when it can't be read."""
    try:
        return str(json.loads(files[POLICY].content)["addresses"][_ENVOY])
    except (KeyError, TypeError, ValueError):
        return ""
