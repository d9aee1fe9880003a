"""Packets without a connection, raw packets, and agents that were started with more than they should have."""

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.envoy.lookups import DNS_PORT, FORWARDER
from devkit.attacks.addresses import HOST_PORT
from devkit.attacks.attack import ALLOWED, EVIL, Attack, Command, Who
from devkit.attacks.datagrams import TALK
from devkit.attacks.literals import ELSEWHERE
from devkit.attacks.names import FETCHES, RESOLVES
from devkit.attacks.opaque import OWN
from devkit.dns import query

HEARD = "heard.test"
"""What datagrams ask the host for: its listener writes down the name."""

_QUIC = b"\xc0\0\0\0\1\x08" + bytes(8) + b"\0\0\x44\xd0" + bytes(1232)
"""The first datagram of QUIC (RFC 9000, section 17.2.2), with nothing in it."""


def _quic(place: str) -> Command:
    return ("raw", place, "--udp", "--hex", _QUIC.hex(), "--timeout", "300ms")


def _pings(what: str, place: str) -> Attack:
    command = ("ping", place, "--timeout", "300ms")
    return Attack(what, command, "no answer", control=command, control_by=Who.NEIGHBOUR)


def _forged(by: Who, place: str, *, six: bool = False, via: str = "bridge", source: Who | None = None) -> Command:
    address = f"{{{by}_link}}" if six else f"{{{source or by}}}"
    return ("forge", place, "--via", f"{{{via}_hardware}}", "--from", address, "--hex", query(HEARD).hex())


_TO_HOST = f"{{world}}:{HOST_PORT}"
_TO_BRIDGE = f"[{{bridge_link}}]:{HOST_PORT}"
_TO_IPV6 = f"[{{six}}]:{HOST_PORT}"

PACKETS = (
    _pings("A ping to a server in the internet", "{world}"),
    _pings("A ping to the host, by the address of another network", "{bridge}"),
    _pings("A ping to a container on the egress network", "{neighbour}"),
    Attack(
        "QUIC to a server in the internet",
        _quic("{world}:443"),
        "no answer",
        control=_quic("{world}:443"),
        control_by=Who.NEIGHBOUR,
    ),
    Attack("QUIC to Envoy", _quic("{envoy}:443"), "connection refused", Reason.NO_RULE, control=FETCHES),
    Attack(
        "QUIC to a name with an address of its own",
        _quic("{own}:8443"),
        "connection refused",
        Reason.WRONG_PORT,
        OWN,
        FETCHES,
    ),
    Attack(
        "IPv6 to a server in the internet",
        ("probe-tcp", "[{six}]:443", "--timeout", "300ms"),
        "no answer",
        control=("probe-tcp", "[{six}]:443", "--timeout", "1s"),
        control_by=Who.HOST,
    ),
    Attack(
        "IPv6 to the host, by the bridge's link-local address",
        ("probe-tcp", "[{bridge_link}%eth0]:443", "--timeout", "300ms"),
        "no answer",
        control=("probe-tcp", "[{bridge_link}%{bridge_name}]:443", "--timeout", "1s"),
        control_by=Who.HOST,
    ),
    Attack(
        "A raw packet of IPv6 to the host",
        _forged(Who.AGENT, _TO_BRIDGE, six=True),
        "not permitted",
        control=_forged(Who.FORGER, _TO_BRIDGE, six=True),
        control_by=Who.FORGER,
    ),
    Attack(
        "A raw packet to the host",
        _forged(Who.AGENT, _TO_HOST),
        "not permitted",
        control=_forged(Who.FORGER, _TO_BRIDGE, six=True),
        control_by=Who.FORGER,
    ),
)

_IPV6_HOST = (
    "The host has an IPv6 address on every bridge. No option of a Docker network removes it, and raw packets need "
    "no source address."
)

OTHERWISE = (
    Attack(
        "With `NET_RAW`, a question to the forwarder on Envoy's loopback address",
        _forged(Who.FORGER, f"{FORWARDER}:{DNS_PORT}", via="envoy"),
        "sent",
        control=FETCHES,
        by=Who.FORGER,
    ),
    Attack(
        "With `NET_RAW`, a datagram with a neighbour's address to an allowed name",
        _forged(Who.FORGER, f"{{{TALK}}}:{HOST_PORT}", via="envoy", source=Who.UNTOLD),
        "sent",
        control=FETCHES,
        by=Who.FORGER,
        heard=(HEARD,),
        because="Agents share an Ethernet network, where source addresses can be forged. The datagram goes only "
        "where the rules allow, and counts as the neighbour's.",
    ),
    *(
        Attack(
            f"With `NET_RAW`, a datagram to a server in the internet, by {whose} hardware address",
            _forged(Who.FORGER, _TO_HOST, via=sibling),
            "sent",
            control=FETCHES,
            by=Who.FORGER,
        )
        for sibling, whose in {"envoy": "Envoy's", "coredns": "CoreDNS's", "relay": "a relay's"}.items()
    ),
    Attack(
        "With `NET_RAW`, a datagram to another address of the host, which checks sources",
        _forged(Who.FORGER, _TO_HOST),
        "sent",
        control=FETCHES,
        by=Who.FORGER,
    ),
    *(
        Attack(
            f"With `NET_RAW`, a datagram to {what}",
            _forged(Who.FORGER, place, six=True),
            "sent",
            control=FETCHES,
            by=Who.FORGER,
            heard=(HEARD,),
            because=_IPV6_HOST,
        )
        for what, place in {
            "an IPv6 address of the host": _TO_IPV6,
            "the host, by the bridge's link-local address": _TO_BRIDGE,
        }.items()
    ),
    Attack(
        "With `NET_RAW`, a name without a rule",
        ("resolve", EVIL),
        "NXDOMAIN",
        Reason.NO_RULE,
        EVIL,
        RESOLVES,
        by=Who.FORGER,
    ),
    Attack(
        "The name of another agent's container, asked of Docker's resolver",
        ("resolve", "{forger_name}", "--server", "127.0.0.11"),
        "an address",
        control=RESOLVES,
        because="Docker's own resolver answers for the names of containers on its networks.",
    ),
    *(
        Attack(
            f"Without `--dns`, {what}",
            ("resolve", name, "--timeout", "1s"),
            "SERVFAIL",  # from docker's own resolver; older engines give no answer
            control=RESOLVES,
            by=Who.UNTOLD,
            control_by=Who.AGENT,
        )
        for what, name in {"an allowed name": ALLOWED, "a name without a rule": EVIL}.items()
    ),
    Attack(
        "On another network as well, a server without a rule",
        ("get", f"https://{EVIL}/", "--connect", "{elsewhere}"),
        "200",
        control=FETCHES,
        by=Who.WANDERER,
        arrives=("/",),
        host=EVIL,
        at=ELSEWHERE,
        because="Traffic on other networks bypasses Envoy and CoreDNS. `status` shows such an agent as `open`.",
    ),
)
