"""The usual first attempts of a hostile agent, and the expected outcomes. Pure.

The addresses are reserved for documentation (RFC 5737, RFC 3849), so nobody receives anything even if a stack
fails. The gateway shows whether packets could leave: engines give agents a route through one, but nobody has its
address.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clawker_fw.model.stacks import Slots
from clawker_fw.rules.own_page import PAGE
from clawker_fw.rules.policy import Policy
from clawker_fw.stack.container import PAGE_PORT as PAGE_HELPER
from clawker_fw.stack.container import REFUSED_NAME
from clawker_fw.stack.topology import Addressing

_INTERNET = 1

_CLOSED = frozenset({"closed without an answer"})
DENIED = frozenset({*_CLOSED, "access denied"})
"""How TLS ends for a name without a rule."""


@dataclass(frozen=True, slots=True)
class Case:
    """One attempt. Further fields are parameters of its kind in `fwctl attempts`."""

    id: str
    what: str
    holds: frozenset[str]
    kind: str
    network: str = "tcp"
    address: str = ""
    name: str = ""
    type: int = 0
    class_: int = _INTERNET
    text: str = ""
    roots: str = ""
    control: bool = False
    """Whether it is allowed, and shows that the other attempts were not refused for another reason."""

    def instruction(self) -> Mapping[str, str | int]:
        """Return the helper's parameters, without the expected outcome."""
        fields = ("id", "kind", "network", "address", "name", "type", "text", "roots")
        return {**{name: getattr(self, name) for name in fields}, "class": self.class_}


_ABSENT = frozenset({"network is unreachable", "no route to host"})
_SILENT = frozenset({*_ABSENT, "no answer"})
_NO_GATEWAY = frozenset({"no gateway answers"})
_NO_IPV6 = frozenset({*_ABSENT, "cannot assign requested address", "address family not supported by protocol"})
_SHUT = frozenset({"connection refused", "no answer"})
_NO_NAME = frozenset({"no such name"})
_NO_DATA = frozenset({"no record"})
_NOT_ASKED = frozenset({"refused", "NOTIMP", "closed without an answer", "no answer"})
_NOT_FORWARDED = frozenset({*_CLOSED, "HTTP 400", "HTTP 403", "HTTP 404", "HTTP 405"})
_NOT_PERMITTED = frozenset({"operation not permitted"})

_A, _NULL, _TXT, _AAAA, _AXFR = 1, 10, 16, 28, 252
_CHAOS = 3

_WORLD, _WORLD_IPV6 = "192.0.2.1", "[2001:db8::1]"
_METADATA = "169.254.169.254"
_ENGINES_RESOLVER = "127.0.0.11:53"
_PUBLIC_NAME = "example.com"


def attempts(where: Addressing, running: Slots, policy: Policy) -> tuple[Case, ...]:
    """Return the attempts against a stack, except those in inspected TLS."""
    envoy, coredns = str(where.envoy(running.envoy)), str(where.coredns(running.coredns))
    exact = (
        rule.destination.name for rule in policy.rules.rules if not rule.denies and not rule.destination.subtree
    )
    allowed = next((name for name in exact if policy.resolves(name)), "")
    return (
        *_questions(f"{where.service}:53", allowed, forbids_public_name=not policy.resolves(_PUBLIC_NAME)),
        *_addresses(where, running.envoy),
        *_siblings(envoy, coredns, frozenset(policy.rules.ports)),
        *_connections(envoy, allowed),
        *_page(f"{where.service}:53", envoy, coredns),
        Case("forge-ethernet", "Packets with another sender (Ethernet)", _NOT_PERMITTED, "socket", "packet"),
        Case("forge-ip", "Packets with another sender (IP)", _NOT_PERMITTED, "socket", "raw"),
    )


def _questions(ask: str, allowed: str, *, forbids_public_name: bool) -> Iterator[Case]:
    """Yield queries to the resolver. `allowed` is a name that a rule allows, if any."""
    secret = f"c2VjcmV0.{REFUSED_NAME}."
    for network in ("udp", "tcp"):
        words = f"A name that no rule allows, over {network.upper()}"
        yield Case(f"name-{network}", words, _NO_NAME, "ask", network, ask, f"{REFUSED_NAME}.", _A)
    yield Case("tunnel-txt", "Data in a name, queried as TXT", _NO_NAME, "ask", "udp", ask, secret, _TXT)
    yield Case("tunnel-null", "Data in a name, queried as NULL", _NO_NAME, "ask", "udp", ask, secret, _NULL)
    yield Case("transfer", "A transfer of all names", _NOT_ASKED | _NO_NAME, "ask", "tcp", ask, ".", _AXFR)
    yield Case("chaos", "The resolver's version", _NOT_ASKED, "ask", "udp", ask, "version.bind.", _TXT, _CHAOS)
    if forbids_public_name:
        words = "A public name, at Docker's own resolver"
        held = _NO_NAME | _SHUT | {"refused", "SERVFAIL"}
        yield Case("engine-resolver", words, held, "ask", "udp", _ENGINES_RESOLVER, f"{_PUBLIC_NAME}.", _A)
    yield Case("other-resolver", "Another resolver", _SILENT, "ask", "udp", f"{_WORLD}:53", f"{REFUSED_NAME}.", _A)
    if allowed:
        name = f"{allowed}."
        yield Case("tunnel-allowed", "TXT of an allowed name", _NO_DATA, "ask", "udp", ask, name, _TXT)
        yield Case("ipv6-allowed", "An IPv6 address of an allowed name", _NO_DATA, "ask", "udp", ask, name, _AAAA)
        answer = frozenset({"an answer"})
        yield Case("allowed", "An allowed name resolves", answer, "ask", "udp", ask, name, _A, control=True)


def _addresses(where: Addressing, slot: int) -> Iterator[Case]:
    yield Case("gateway", "A gateway that answers", _NO_GATEWAY, "gateway")
    yield Case("internet", "An address on the internet", _ABSENT, "connect", address=f"{_WORLD}:443")
    words = "An address on the internet, over UDP"
    yield Case("internet-udp", words, _SILENT, "datagram", "udp", f"{_WORLD}:443", text="x")
    yield Case(
        "internet-ipv6", "An address on the internet, over IPv6", _NO_IPV6, "connect", address=f"{_WORLD_IPV6}:443"
    )
    yield Case("metadata", "A cloud's metadata service", _ABSENT, "connect", address=f"{_METADATA}:80")
    yield Case(
        "host", "The Docker host, on the egress network", _ABSENT, "connect", address=f"{where.egress_gateway}:22"
    )
    bridge = where.agents[1]
    yield Case("bridge", "The Docker host, on the agent network", _SILENT, "connect", address=f"{bridge}:22")
    yield Case("engine", "Docker's API, on the agent network", _SILENT, "connect", address=f"{bridge}:2375")
    for number, address in enumerate((where.egress_primary(slot), where.guarded(slot), where.exempt(slot))):
        words = f"Envoy's address {address} on the egress network"
        yield Case(f"egress-{number}", words, _ABSENT, "connect", address=f"{address}:443")


def _siblings(envoy: str, coredns: str, ports: frozenset[int]) -> Iterator[Case]:
    for name, address, port in (
        ("Envoy's administration", envoy, 9901),
        ("DNS at Envoy", envoy, 53),
        ("CoreDNS's metrics", coredns, 9153),
        ("CoreDNS's health page", coredns, 8080),
    ):
        if port not in ports:  # Envoy listens on the rules' ports
            yield Case(f"port-{port}", f"{name}, port {port}", _SHUT, "connect", address=f"{address}:{port}")


def _connections(envoy: str, allowed: str) -> Iterator[Case]:
    tls, http = f"{envoy}:443", f"{envoy}:80"
    yield Case("sni", "TLS for a name that no rule allows", DENIED, "tls", address=tls, name=REFUSED_NAME)
    yield Case("no-sni", "TLS without a server name", DENIED, "tls", address=tls)
    words = "Something else than TLS on port 443"
    yield Case("not-tls", words, _NOT_FORWARDED, "send", address=tls, text="SSH-2.0-agent\r\n")
    yield Case("quic", "QUIC", _SHUT, "datagram", "udp", tls, text="\xc0" + "\0" * 40)
    host = f"Host: {REFUSED_NAME}\r\nConnection: close\r\n\r\n"
    for name, words, text in (
        ("host", "HTTP for a host that no rule allows", f"GET / HTTP/1.1\r\n{host}"),
        ("connect", "A tunnel by CONNECT", f"CONNECT {REFUSED_NAME}:443 HTTP/1.1\r\n{host}"),
        ("absolute", "A proxy request", f"GET http://{REFUSED_NAME}/ HTTP/1.1\r\n{host}"),
        (
            "two-hosts",
            "Two hosts in a request",
            f"GET / HTTP/1.1\r\nHost: {allowed or 'a.invalid'}\r\n{host}",
        ),
        (
            "address-host",
            "An address as the host",
            f"GET / HTTP/1.1\r\nHost: {_METADATA}\r\nConnection: close\r\n\r\n",
        ),
    ):
        yield Case(f"http-{name}", words, _NOT_FORWARDED, "send", address=http, text=text)


def _page(ask: str, envoy: str, coredns: str) -> Iterator[Case]:
    http, tls = f"{envoy}:80", f"{envoy}:443"
    answer, page = frozenset({"an answer"}), frozenset({"HTTP 200"})
    yield Case(
        "page-name", "The name of the page resolves", answer, "ask", "udp", ask, f"{PAGE}.", _A, control=True
    )
    for name, words, text, holds in (
        ("", "The page about the agent's own refusals opens", "GET /", page),
        ("-method", "Another method for this page", "POST /", frozenset({"HTTP 405"})),
        ("-path", "Another path of this page", "GET /other", frozenset({"HTTP 404"})),
        ("-query", "Another agent's page", "GET /?agent=192.0.2.1", frozenset({"HTTP 404"})),
    ):
        request = f"{text} HTTP/1.1\r\nHost: {PAGE}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        yield Case(f"page{name}", words, holds, "send", address=http, text=request, control=holds is page)
    yield Case("page-tls", "The name of this page in TLS", DENIED, "tls", address=tls, name=PAGE)
    helper = f"{coredns}:{PAGE_HELPER}"
    yield Case("page-helper", "CoreDNS's part of this page", _SHUT, "connect", address=helper)
