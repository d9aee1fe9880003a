"""Tampering with a network: it is recreated with something else."""

from collections.abc import Callable
from ipaddress import IPv4Network

from clawker_fw.stack.container import PROBER
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.name_list import POLICY
from clawker_fw.stack.topology import lower_half
from devkit.hand import Body
from devkit.tampering.way import COREDNS, ENVOY, SETTINGS, Recreation, Sign, Tampering, fields, signs


def _network(end: str, what: str, change: Callable[[Body], None], *fields: str) -> Tampering:
    """Return the recreation of a network. The siblings on it are disconnected before, and stay disconnected."""
    name = f"{{project}}-{end}"
    owner = COREDNS if end == "net" else ENVOY
    off = signs(ENVOY, "reattach", f"state/networks.{name}", "live/network")
    if end == "net":
        attached = (f"state/networks.{name}", "state/service_address", "live/network")
        off += signs(COREDNS, "reattach", *attached)
    return Tampering(
        f"the {'agent' if end == 'net' else 'egress'} network is recreated {what}",
        Recreation(end, change),
        (*(Sign(owner, "shape", f"networks.{name}.{field}", "recreate-networks") for field in fields), *off),
        beside="recreated network",
    )


def _with_ipv6(body: Body) -> None:
    body["EnableIPv6"] = True
    body["Options"] = {key: text for key, text in body["Options"].items() if not key.endswith("enable_ipv6")}
    body["IPAM"]["Config"].append({"Subnet": "fd00:c1a3::/64"})


def _without_ip_range(body: Body) -> None:
    del body["IPAM"]["Config"][0]["IPRange"]


def _other_gateway(body: Body) -> None:
    (pool,) = body["IPAM"]["Config"]
    pool["Gateway"] = f"{pool['Gateway'].rpartition('.')[0]}.254"


_HOLDING_ADDRESSES = ((ENVOY, LISTENERS, "listeners"), (COREDNS, POLICY, "policy"))


def _other_subnet(body: Body) -> None:
    (pool,) = body["IPAM"]["Config"]
    subnet = IPv4Network("10.77.0.0/20")
    pool.update(Subnet=str(subnet), Gateway=str(subnet[1]), IPRange=str(lower_half(subnet)))


_HOST_ADDRESS = {"com.docker.network.bridge.inhibit_ipv4": "false"}
NETWORKS = (
    _network("net", "as an external one", fields(Internal=False), "internal"),
    _network("net", "with a host address", lambda body: body["Options"].update(_HOST_ADDRESS), "options"),
    _network("net", "with IPv6", _with_ipv6, "ipv6"),
    _network("net", "without its IP range, so agents can get reserved addresses", _without_ip_range, "ip_range"),
    _network("egress", "with another gateway", _other_gateway, "gateway"),
    _network("egress", "as an internal one", fields(Internal=True), "internal"),
    Tampering(
        "the agent network is recreated with another subnet, and the settings name none",
        Recreation("net", _other_subnet),
        (
            *(
                sign
                for sibling in (ENVOY, COREDNS)
                for sign in (
                    Sign(sibling, "state", "networks.{project}-net", "replace"),
                    Sign(sibling, "boot", "boot/sibling.json", "replace", SETTINGS),
                    Sign(sibling, "live", "network", "replace"),
                )
            ),
            Sign(COREDNS, "state", "service_address", "claim"),
            Sign(COREDNS, "hot", PROBER, "commit", SETTINGS),
            *(
                Sign(sibling, layer, field, "commit", SETTINGS)
                for sibling, path, resource in _HOLDING_ADDRESSES
                for layer, field in (("hot", path), ("live", resource))
            ),
        ),
    ),
)
