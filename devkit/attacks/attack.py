"""One thing that a hostile agent tries: what it sends, what it gets, and what must be on record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from clawker_fw.rules.reasons import Reason
from devkit.peers import Answer
from devkit.world import WORLD

if TYPE_CHECKING:
    from devkit.attacks.floods import Flood

ALLOWED, EVIL = "pub.test", "evil.test"
"""A name that rules allow, and one that no rule allows. Envoy's resolver knows both, at different addresses."""

DIRECT = ("--connect", "{envoy}")
"""Options of `get` for an agent that does not ask the resolver, and uses Envoy's address."""

ENDED = {"reset", "closed", "denied"}
"""How a connection ends that no rule allows."""

_ACCESS_DENIED = "\x15\x03\x03\0\2\2\x31"
"""The alert with which Envoy ends TLS (RFC 8446, section 6.2)."""

UNANSWERED = {"timeout", "connect-timeout", "connect-unreachable", "dns-timeout"}

_HEADERS = {12, 14}
"""Octets of the header of a DNS message, over UDP and over TCP. It has the code (RFC 1035, section 4.1.1)."""

Command = tuple[str, ...]

FETCHES = ("get", f"https://{ALLOWED}/", *DIRECT)
FETCHES_HTTP = ("get", f"http://{ALLOWED}/", *DIRECT)
"""What succeeds at Envoy, over TLS and over HTTP."""


def probe(place: str, timeout: str = "1s") -> Command:
    return ("probe-tcp", place, "--timeout", timeout)


def raw(place: str, content: bytes, *options: str) -> Command:
    return ("raw", place, "--hex", content.hex(), *options)


class Who(StrEnum):
    """Who makes an attempt, or its control."""

    AGENT = "agent"
    """An agent as the documentation says: on one network, without any privilege."""

    FORGER = "forger"
    """An agent that may send raw packets, as docker allows if it is not told otherwise (`NET_RAW`)."""

    WANDERER = "wanderer"
    """An agent that is on another network as well."""

    UNTOLD = "untold"
    """An agent that was not told of our resolver."""

    NEIGHBOUR = "neighbour"
    """A container on the egress network, which is not confined."""

    PUBLISHER = "publisher"
    """An agent with a published port, for which there is a relay."""

    HOST = "host"


@dataclass(frozen=True)
class Attack:
    """An attempt of an agent. Commands may contain the placeholders of `devkit.attacks.site.Site.places`."""

    what: str

    command: Command

    result: str
    """What the agent gets, in the words of `result_of`."""

    reason: Reason | None = None
    """Why it is refused, as on record. There is no record of what is allowed, or arrives at neither sibling."""

    name: str | None = None
    """What was asked for, as on record."""

    control: Command = ()
    """What succeeds in the same way, directly afterwards."""

    arrives: tuple[str, ...] = ()
    """The targets of the requests that arrive because of it, under a name, on a port and at an address."""

    host: str = ALLOWED
    port: int = 443
    at: str = field(default=WORLD, kw_only=True)

    connects: bool = field(default=False, kw_only=True)
    """Whether a connection to the allowed origin may be begun, although no request follows."""

    by: Who = field(default=Who.AGENT, kw_only=True)

    control_by: Who | None = field(default=None, kw_only=True)
    """Who makes the control, if no agent succeeds in this way."""

    heard: tuple[str, ...] = field(default=(), kw_only=True)
    """The names in queries that the host receives because of it."""

    because: str = field(default="", kw_only=True)
    """Why it can't be stopped, for what gets through although nobody wants it."""


@dataclass(frozen=True)
class Group:
    """Attacks of one kind."""

    title: str

    tried: str

    holds: str
    """What holds against all of it."""

    attacks: Sequence[Attack] = ()

    floods: "Sequence[Flood]" = ()
    """Attacks on what all agents share."""

    unstopped: Mapping[str, str] = field(default_factory=dict)
    """What gets through in further tests, and why it can't be stopped."""

    @property
    def gets_through(self) -> Mapping[str, str]:
        return {each.what: each.because for each in self.attacks if each.because} | dict(self.unstopped)


def closed_port(what: str, command: Command, control: Command, name: str | None = None) -> Attack:
    """Return an attempt at a port that nobody listens on; `name` is what its address stands for."""
    reason = Reason.WRONG_PORT if name else Reason.NO_RULE
    return Attack(what, command, "connection refused", reason, name, control)


def outside(what: str, command: Command, *, by: Who = Who.NEIGHBOUR, control: Command = ()) -> Attack:
    """Return an attempt without an answer. Who is not confined succeeds: by the control, else in the same way."""
    return Attack(what, command, "no answer", control=control or command, control_by=by)


def result_of(answer: Answer) -> str:
    """Return in words what an agent got: the status of a response, the code of a DNS answer, or how it ended."""
    last = answer.last
    if last.get("answers"):
        return "an address"
    if last.get("rcode"):
        return "no record" if last["rcode"] == "NOERROR" else str(last["rcode"])
    if "reply" in last and not last["error"]:
        return _response(last["reply"])
    if last.get("status"):
        return str(last["status"])
    if not last["error"]:
        return "a connection" if "ms" in last else "sent"
    words = {"dns-nxdomain": "NXDOMAIN", "connect-refused": "connection refused", "forbidden": "not permitted"}
    words |= dict.fromkeys(ENDED, "closed") | dict.fromkeys(UNANSWERED, "no answer")
    return words.get(answer.kind, answer.kind)


def _response(reply: str) -> str:
    """Return the status of each response in what came back, or `closed` if nothing did."""
    if reply in {"", _ACCESS_DENIED}:
        return "closed"
    if not reply.startswith("HTTP/1"):
        return "FORMERR" if len(reply) in _HEADERS and ord(reply[-9]) & 15 == 1 else "HTTP/2"
    return ", ".join(part[1:4] for part in reply.split("HTTP/1.1")[1:] if part[1:4].isdigit()) or "closed"
