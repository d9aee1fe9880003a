"""Names that lead where no agent may go, and addresses that agents use without any name."""

from clawker_fw.rules.reasons import Reason
from clawker_fw.settings.values import OtelSettings
from devkit.attacks.attack import ALLOWED, Attack, Command, Who

PRIVATE = {
    "local": "169.254.169.254",
    "private": "10.9.9.9",
    "shared": "100.64.0.1",
    "platform": "168.63.129.16",
    "gateway": "10.214.0.1",
}
"""Further addresses of the origin, which no agent may reach."""

HOST_PORT = 5300
"""The port on which the host listens for datagrams to any address."""


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


def _connects(what: str, target: str) -> Attack:
    command: Command = ("probe-tcp", target, "--timeout", "1s")
    return Attack(what, command, "no answer", control=command, control_by=Who.NEIGHBOUR)


def _knocks(port: int, what: str) -> Attack:
    return _listens(what, f"{{envoy}}:{port}", "{envoy}:443")


def _listens(what: str, place: str, open_: str = "{resolver}:53") -> Attack:
    control = ("probe-tcp", open_, "--timeout", "1s")
    return Attack(
        what, ("probe-tcp", place, "--timeout", "1s"), "connection refused", Reason.NO_RULE, control=control
    )


PUBLISHED_PORT = 18080
"""The port of the host at which a port of an agent is published."""


def _relayed(what: str, target: str, result: str) -> Attack:
    """Return an attempt at the relay of another agent, through which the host gets to that agent."""
    control = ("probe-tcp", f"127.0.0.1:{PUBLISHED_PORT}", "--timeout", "1s")
    return Attack(what, ("probe-tcp", target, "--timeout", "1s"), result, control=control, control_by=Who.HOST)


def _broadcasts(what: str, address: str) -> Attack:
    asked = ("resolve", "heard.test", "--timeout", "300ms", "--server")
    heard = (*asked, f"{{gateway}}:{HOST_PORT}")
    return Attack(
        what,
        (*asked, f"{address}:{HOST_PORT}", "--from", "{agent}"),
        "no answer",
        control=heard,
        control_by=Who.NEIGHBOUR,
    )


ADDRESSES = (
    _connects("A server in the internet", "{world}:443"),
    _connects("A server in the internet, over HTTP", "{world}:80"),
    _connects("A name server in the internet, over TCP", "{nameserver}:53"),
    _connects("The host, by the egress network's gateway", "{gateway}:80"),
    _connects("The host, by the address of another network", "{bridge}:80"),
    _connects("The cloud's services", f"{PRIVATE['local']}:80"),
    _connects("A server in the office", f"{PRIVATE['private']}:80"),
    _connects("A container on the egress network", "{neighbour}:80"),
    _broadcasts("A broadcast to the host, which checks sources", "255.255.255.255"),
    _broadcasts("A multicast to the host, which checks sources", "224.0.0.1"),
    _knocks(22, "A port of Envoy without rules, for SSH"),
    _knocks(53, "A port of Envoy without rules, for DNS"),
    _knocks(2222, "A port of Envoy without rules, on which the origin listens"),
    _knocks(9901, "The port of Envoy's administration"),
    _listens(
        "The port at which Envoy passes on the resolver's telemetry", f"{{relay}}:{RELAY_PORT}", "{envoy}:443"
    ),
    _listens("A rule's port at the address for that", "{relay}:443", "{envoy}:443"),
    _listens("The port for telemetry at Envoy's own address", f"{{envoy}}:{RELAY_PORT}", "{envoy}:443"),
    _listens("Another port of the resolver", "{resolver}:8080"),
    _listens("The resolver's port of Prometheus", "{resolver}:9153"),
    _listens("The port of Envoy's administration, at the resolver", "{resolver}:9901"),
    _listens("A port of an allowed name, at the resolver", "{resolver}:443"),
    _relayed("The relay of an agent that publishes a port", "{relay_on_agents}:80", "no answer"),
    _relayed("Another port of that relay", "{relay_on_agents}:22", "no answer"),
    _relayed("The relay, where the engine publishes its ports", "{relay_on_publishing}:80", "no answer"),
    _relayed(
        "The host, where the engine publishes ports", f"{{publishing_gateway}}:{PUBLISHED_PORT}", "no answer"
    ),
    Attack(
        "The other slot's address of Envoy, which nobody has",
        ("probe-tcp", "{other_envoy}:443", "--timeout", "300ms"),
        "no answer",
        control=("probe-tcp", "{envoy}:443", "--timeout", "1s"),
    ),
)
