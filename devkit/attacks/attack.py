"""One thing that a hostile agent tries: what it sends, what it gets, and what must be on record."""

from dataclasses import dataclass, field

from clawker_fw.rules.reasons import Reason
from devkit.peers import Answer

ALLOWED, EVIL = "pub.test", "evil.test"
"""A name that rules allow, and one that no rule allows. Envoy's resolver knows both, at different addresses."""

DIRECT = ("--connect", "{envoy}")
"""Options of `get` for an agent that does not ask the resolver, and uses Envoy's address."""

ENDED = {"reset", "closed"}
UNANSWERED = {"timeout", "connect-timeout", "connect-unreachable", "dns-timeout"}

Command = tuple[str, ...]


@dataclass(frozen=True)
class Attack:
    """An attempt of an agent.

    Arguments of commands may contain placeholders in braces, for addresses that differ between stacks: those of
    `devkit.attacks.site.Site.places`.
    """

    what: str
    """What is tried, in words."""

    command: Command
    """The arguments of the peer program, which the agent runs."""

    result: str
    """What the agent gets, in the words of `result_of`."""

    reason: Reason | None = None
    """Why it is refused, as on record. There is no record of what is allowed, or arrives at neither sibling."""

    name: str | None = None
    """What was asked for, as on record."""

    control: Command = ()
    """What succeeds in the same way, directly afterwards."""

    arrives: tuple[str, ...] = ()
    """The targets of the requests that arrive because of it, all at the allowed origin under its own name."""

    host: str = ALLOWED
    """The name under which those requests arrive."""

    port: int = 443
    """The port on which those requests arrive."""

    heard: bool = field(default=False, kw_only=True)
    """Whether the host of a datagram hears of it."""

    freely: bool = field(default=False, kw_only=True)
    """Whether the control is made by a container that is not confined, because no agent succeeds in this way."""


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
    error = last["error"]
    kind = error["kind"] if isinstance(error, dict) else error
    if kind is None:
        return "a connection"
    words = {"dns-nxdomain": "NXDOMAIN", "connect-refused": "connection refused"}
    words |= dict.fromkeys(ENDED, "closed") | dict.fromkeys(UNANSWERED, "no answer")
    return words.get(kind, str(kind))


def _response(reply: str) -> str:
    """Return the status of each response in what came back, or `closed` if nothing did."""
    if not reply:
        return "closed"
    if not reply.startswith("HTTP/1"):
        return "HTTP/2"
    return ", ".join(part[1:4] for part in reply.split("HTTP/1.1")[1:] if part[1:4].isdigit()) or "closed"
