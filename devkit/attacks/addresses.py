"""Names that lead where no agent may go, and addresses that agents use without any name."""

from clawker_fw.rules.reasons import Reason
from clawker_fw.settings.values import OtelSettings
from devkit.attacks.attack import ALLOWED, Attack, Who, closed_port, outside, probe

PRIVATE = {
    "local": "169.254.169.254",
    "private": "10.9.9.9",
    "shared": "100.64.0.1",
    "platform": "168.63.129.16",
    "gateway": "10.214.0.1",
}
"""Further addresses of the origin, which no agent may reach."""

HOST_PORT = 5300


RELAY_PORT = OtelSettings().infra_port


_ON_AGENTS = {"agent", "self", "resolver", "virtual"}
"""Names that lead to the agents' network. Such an address is no answer for Envoy."""


def _leads(name: str, where: str, protocol: str, reason: Reason = Reason.PRIVATE_ADDRESS) -> Attack:
    if name.removesuffix("2") in _ON_AGENTS:
        reason = Reason.NO_ADDRESS
    return Attack(
        f"An allowed name that leads to {where}, over {protocol.upper()}",
        ("get", f"{protocol}://{name}.test/"),
        "503" if protocol == "http" else "closed",
        reason,
        f"{name}.test",
        ("get", f"{protocol}://{ALLOWED}/"),
    )


REFUSED_PLACES = {
    "loop": "loopback",
    "loop2": "loopback, with `allow_private`",
    "local": "a link-local address",
    "local2": "a link-local address, with `allow_private`",
    "private": "a private address",
    "shared": "a shared address",
    "platform": "an address of the cloud's platform",
    "benchmark": "an address for benchmarks",
    "reserved": "a reserved address",
    "multicast": "a multicast address",
    "broadcast": "the address of all",
    "gateway": "the host",
    "agent": "an agent",
    "agent2": "an agent, with `allow_private`",
    "self": "Envoy",
    "self2": "Envoy, with `allow_private`",
    "way": "Envoy's address on its way out",
    "way2": "Envoy's address on its way out, with `allow_private`",
    "resolver": "the resolver",
    "resolver2": "the resolver, with `allow_private`",
    "virtual": "the address of another name",
    "virtual2": "the address of another name, with `allow_private`",
    "beside": "a container on the egress network",
    "zero": "0.0.0.0, for which the kernel takes Envoy's own address",
    "zero2": "0.0.0.0, with `allow_private`",
    "several": "several private addresses",
    "alias": "a private address, as an alias of another name",
}
"""Names that lead to addresses to which the kernel has no way, and what is there."""

IPV6_PLACES = {
    "six": "IPv6",
    "loop6": "loopback of IPv6",
    "mapped": "loopback, as an address of IPv6",
    "mapped2": "loopback, as an address of IPv6, with `allow_private`",
}
"""Names without an IPv4 address: no other one is looked up."""

BEHIND_NAMES = (
    *(_leads(name, where, "http") for name, where in REFUSED_PLACES.items()),
    *(_leads(name, REFUSED_PLACES[name], "https") for name in ("loop", "local", "private", "shared")),
    *(_leads(name, where, "http", Reason.NO_ADDRESS) for name, where in IPV6_PLACES.items()),
)


PUBLISHED_PORT = 18080


def _broadcasts(what: str, address: str) -> Attack:
    asked = ("resolve", "heard.test", "--timeout", "300ms", "--server")
    heard = (*asked, f"{{gateway}}:{HOST_PORT}")
    return outside(what, (*asked, f"{address}:{HOST_PORT}", "--from", "{agent}"), control=heard)


_OTHER = "The other slot's address of Envoy, which nobody has"
ADDRESSES = (
    *(
        outside(what, probe(place))
        for what, place in {
            "A server in the internet": "{world}:443",
            "A server in the internet, over HTTP": "{world}:80",
            "A name server in the internet, over TCP": "{nameserver}:53",
            "The host, by the egress network's gateway": "{gateway}:80",
            "The host, by the address of another network": "{bridge}:80",
            "The cloud's services": f"{PRIVATE['local']}:80",
            "A server in the office": f"{PRIVATE['private']}:80",
            "A container on the egress network": "{neighbour}:80",
        }.items()
    ),
    _broadcasts("A broadcast to the host, which checks sources", "255.255.255.255"),
    _broadcasts("A multicast to the host, which checks sources", "224.0.0.1"),
    *(
        closed_port(what, probe(place), probe("{envoy}:443"))
        for what, place in {
            "A port of Envoy without rules, for SSH": "{envoy}:22",
            "A port of Envoy without rules, for DNS": "{envoy}:53",
            "A port of Envoy without rules, on which the origin listens": "{envoy}:2222",
            "The port of Envoy's administration": "{envoy}:9901",
            "The port at which Envoy passes on the resolver's telemetry": f"{{relay}}:{RELAY_PORT}",
            "A rule's port at the address for that": "{relay}:443",
            "The port for telemetry at Envoy's own address": f"{{envoy}}:{RELAY_PORT}",
        }.items()
    ),
    *(
        closed_port(what, probe(f"{{resolver}}:{port}"), probe("{resolver}:53"))
        for what, port in {
            "Another port of the resolver": 8080,
            "The resolver's port of Prometheus": 9153,
            "The port of Envoy's administration, at the resolver": 9901,
            "A port of an allowed name, at the resolver": 443,
        }.items()
    ),
    *(  # through it, the host gets to that agent
        outside(what, probe(place), by=Who.HOST, control=probe(f"127.0.0.1:{PUBLISHED_PORT}"))
        for what, place in {
            "The relay of an agent that publishes a port": "{relay_on_agents}:80",
            "Another port of that relay": "{relay_on_agents}:22",
            "The relay, where the engine publishes its ports": "{relay_on_publishing}:80",
            "The host, where the engine publishes ports": f"{{publishing_gateway}}:{PUBLISHED_PORT}",
        }.items()
    ),
    Attack(_OTHER, probe("{other_envoy}:443", "300ms"), "no answer", control=probe("{envoy}:443")),
)
