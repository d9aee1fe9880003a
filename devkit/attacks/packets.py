"""Packets without a connection, raw packets, and agents that were started with more than they should have."""

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.envoy.lookups import DNS_PORT, FORWARDER
from devkit.attacks.addresses import HOST_PORT
from devkit.attacks.attack import ALLOWED, EVIL, FETCHES, Attack, Command, Who, closed_port, outside, probe, raw
from devkit.attacks.datagrams import HEARD, TALK
from devkit.attacks.literals import ELSEWHERE
from devkit.attacks.names import RESOLVES
from devkit.attacks.opaque import OWN
from devkit.dns import query

_QUIC = b"\xc0\0\0\0\1\x08" + bytes(8) + b"\0\0\x44\xd0" + bytes(1232)
"""The first datagram of QUIC (RFC 9000, section 17.2.2), with nothing in it."""


def _quic(place: str) -> Command:
    return raw(place, _QUIC, "--udp", "--timeout", "300ms")


def _pings(what: str, place: str) -> Attack:
    return outside(f"A ping to {what}", ("ping", place, "--timeout", "300ms"))


def _forged(by: Who, place: str, *, six: bool = False, via: str = "bridge", source: Who | None = None) -> Command:
    address = f"{{{by}_link}}" if six else f"{{{source or by}}}"
    return ("forge", place, "--via", f"{{{via}_hardware}}", "--from", address, "--hex", query(HEARD).hex())


_TO_HOST = f"{{world}}:{HOST_PORT}"
_TO_BRIDGE = f"[{{bridge_link}}]:{HOST_PORT}"
_TO_IPV6 = f"[{{six}}]:{HOST_PORT}"

_TO_LINK = "the host, by the bridge's link-local address"
_FORGES = _forged(Who.FORGER, _TO_BRIDGE, six=True)

PACKETS = (
    _pings("a server in the internet", "{world}"),
    _pings("the host, by the address of another network", "{bridge}"),
    _pings("a container on the egress network", "{neighbour}"),
    outside("QUIC to a server in the internet", _quic("{world}:443")),
    closed_port("QUIC to Envoy", _quic("{envoy}:443"), FETCHES),
    closed_port("QUIC to a name with an address of its own", _quic("{own}:8443"), FETCHES, OWN),
    *(
        outside(f"IPv6 to {what}", probe(place, "300ms"), by=Who.HOST, control=probe(host))
        for what, place, host in (
            ("a server in the internet", "[{six}]:443", "[{six}]:443"),
            (_TO_LINK, "[{bridge_link}%eth0]:443", "[{bridge_link}%{bridge_name}]:443"),
        )
    ),
    *(
        Attack(f"A raw packet {what}", forged, "not permitted", control=_FORGES, control_by=Who.FORGER)
        for what, forged in {
            "of IPv6 to the host": _forged(Who.AGENT, _TO_BRIDGE, six=True),
            "to the host": _forged(Who.AGENT, _TO_HOST),
        }.items()
    ),
)


def _with_raw(what: str, command: Command, *heard: str, because: str = "") -> Attack:
    return Attack(
        f"With `NET_RAW`, {what}", command, "sent", control=FETCHES, by=Who.FORGER, heard=heard, because=because
    )


_IPV6_HOST = (
    "The host has an IPv6 address on every bridge. No option of a Docker network removes it, and raw packets need "
    "no source address."
)

_ASKING = "With `NET_RAW`, a name without a rule"

OTHERWISE = (
    _with_raw(
        "a question to the forwarder on Envoy's loopback address",
        _forged(Who.FORGER, f"{FORWARDER}:{DNS_PORT}", via="envoy"),
    ),
    _with_raw(
        "a datagram with a neighbour's address to an allowed name",
        _forged(Who.FORGER, f"{{{TALK}}}:{HOST_PORT}", via="envoy", source=Who.UNTOLD),
        HEARD,
        because="Agents share an Ethernet network, where source addresses can be forged. The datagram goes only "
        "where the rules allow, and counts as the neighbour's.",
    ),
    *(
        _with_raw(
            f"a datagram to a server in the internet, by {whose} hardware address",
            _forged(Who.FORGER, _TO_HOST, via=sibling),
        )
        for sibling, whose in {"envoy": "Envoy's", "coredns": "CoreDNS's", "relay": "a relay's"}.items()
    ),
    _with_raw("a datagram to another address of the host, which checks sources", _forged(Who.FORGER, _TO_HOST)),
    *(
        _with_raw(f"a datagram to {what}", _forged(Who.FORGER, place, six=True), HEARD, because=_IPV6_HOST)
        for what, place in {
            "an IPv6 address of the host": _TO_IPV6,
            _TO_LINK: _TO_BRIDGE,
        }.items()
    ),
    Attack(_ASKING, ("resolve", EVIL), "NXDOMAIN", Reason.NO_RULE, EVIL, RESOLVES, by=Who.FORGER),
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
