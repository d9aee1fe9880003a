"""Names that lead where no agent may go, and addresses that agents use without any name."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.attack import ALLOWED, Attack, Command

PRIVATE = {"local": "169.254.169.254", "private": "10.9.9.9", "shared": "100.64.0.1", "gateway": "10.214.0.1"}
"""Further addresses of the origin, which no agent may reach."""

HOST_PORT = 5300
"""The port on which the host listens for datagrams to any address."""


def _leads(name: str, protocol: str) -> Attack:
    return Attack(
        f"An allowed name that leads to {_WHERE[name]}, over {protocol.upper()}",
        ("get", f"{protocol}://{name}.test/"),
        "503" if protocol == "http" else "closed",
        Reason.PRIVATE_ADDRESS,
        f"{name}.test",
        ("get", f"{protocol}://{ALLOWED}/"),
    )


_WHERE = {
    "loop": "loopback",
    "loop2": "loopback, with `allow_private`",
    "local": "a link-local address",
    "private": "a private address",
    "shared": "a shared address",
    "gateway": "the host",
    "agent": "an agent",
    "agent2": "an agent, with `allow_private`",
    "self": "Envoy",
    "self2": "Envoy, with `allow_private`",
}

BEHIND_NAMES = (
    *(_leads(name, "http") for name in _WHERE),
    *(_leads(name, "https") for name in ("loop", "local", "private", "shared")),
)


def _connects(what: str, target: str) -> Attack:
    command: Command = ("probe-tcp", target, "--timeout", "1s")
    return Attack(what, command, "no answer", control=command, freely=True)


def _knocks(port: int, what: str) -> Attack:
    open_ = ("probe-tcp", "{envoy}:443", "--timeout", "1s")
    command: Command = ("probe-tcp", f"{{envoy}}:{port}", "--timeout", "1s")
    return Attack(what, command, "connection refused", Reason.NO_RULE, control=open_)


def _broadcasts(what: str, address: str) -> Attack:
    asked = ("resolve", "heard.test", "--timeout", "300ms", "--server")
    heard = (*asked, f"{{gateway}}:{HOST_PORT}")
    return Attack(
        what, (*asked, f"{address}:{HOST_PORT}", "--from", "{agent}"), "no answer", control=heard, freely=True
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
    Attack(
        "Another port of the resolver",
        ("probe-tcp", "{resolver}:8080", "--timeout", "1s"),
        "connection refused",
        Reason.NO_RULE,
        control=("probe-tcp", "{resolver}:53", "--timeout", "1s"),
    ),
)
