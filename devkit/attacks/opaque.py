"""Names that have an address of their own: one host stands there, and nothing that is sent changes that."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.attack import ALLOWED, EVIL, Attack, Command, closed_port, probe, raw
from devkit.attacks.requests import request

OWN, RAW = "own.test", "raw.test"
TLS, PLAIN = 8443, 2222

FETCHES = ("get", f"https://{OWN}:{TLS}/")
ASKS = ("get", f"http://{RAW}:{PLAIN}/")


ADDRESS = "203-0-113-10.net.test"
"""The name of an address that a rule allows."""


def _knocks(what: str, place: str, name: str | None = None) -> Attack:
    return closed_port(what, probe(place), FETCHES, name)


def _leads(what: str, name: str) -> Attack:
    return Attack(
        what, ("get", f"http://{name}/"), "closed", Reason.PRIVATE_ADDRESS, name, ("get", f"http://{ALLOWED}/")
    )


def _at_own(name: str) -> Command:
    return ("get", f"https://{name}:{TLS}/", "--connect", f"{{own}}:{TLS}")


def _passes(what: str, command: Command, host: str, port: int) -> Attack:
    control = FETCHES if port == TLS else ASKS
    return Attack(what, command, "200", control=control, arrives=("/",), host=host, port=port)


_SSH = "shell.test:22"
_ASKS_DNS = ("resolve", EVIL, "--server", "{own}:53", "--timeout", "1s")

OPAQUE = (
    *(
        _passes(f"TLS {what}", command, f"{name}:{TLS}", TLS)
        for what, name, command in (
            ("with the name's own server name", OWN, FETCHES),
            ("with a server name without a rule", EVIL, _at_own(EVIL)),
            ("with another allowed server name", "wild.test", _at_own("wild.test")),
            ("without a server name", OWN, (*FETCHES, "--sni", "")),
        )
    ),
    *(
        _passes(
            f"HTTP with {what}",
            raw(f"{{raw}}:{PLAIN}", request("GET / HTTP/1.1", f"Host: {host}"), "--timeout", "400ms"),
            host,
            PLAIN,
        )
        for what, host in {
            "the name's own host": RAW,
            "a host without a rule": EVIL,
            "an odd host": "x*.test",
        }.items()
    ),
    _knocks("Another port, with a rule for other names", "{own}:443", OWN),
    _knocks("Another port, with a rule for another such name", "{own}:2222", OWN),
    _knocks("The port of SSH", "{own}:22", OWN),
    _knocks("The port of the resolver", "{own}:53", OWN),
    closed_port("A query to the port of the resolver", _ASKS_DNS, FETCHES, OWN),
    _knocks("An address that stands for no name", "{unused}:8443"),
    _knocks("The port of such a name, at the shared address", "{envoy}:2222"),
    _leads("A name that leads to a private address", "in.test"),
    _leads("A name that leads to loopback, with `allow_private`", "in2.test"),
    _passes("The name of an allowed address", ("get", f"http://{ADDRESS}:{PLAIN}/"), f"{ADDRESS}:{PLAIN}", PLAIN),
    _knocks("The same on another port", f"{ADDRESS}:80", ADDRESS),
    *(
        Attack(what, ("resolve", name), "NXDOMAIN", Reason.NO_RULE, name, ("resolve", ADDRESS))
        for what, name in {
            "The name of an address beside an allowed one": "203-0-113-12.net.test",
            "The name of a private address, below the same name": "10-9-9-9.net.test",
            "Another spelling of an allowed address": "203-0-113-010.net.test",
            "An allowed address, with dots": "203.0.113.10.net.test",
            "A name below that of an allowed address": f"x.{ADDRESS}",
            "The name above that of an allowed address": "net.test",
        }.items()
    ),
    Attack("A name that does not exist", probe(_SSH), "a connection", Reason.NO_ADDRESS, "shell.test", FETCHES),
)
