"""Names that have an address of their own: one host stands there, and nothing that is sent changes that."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.attack import ALLOWED, EVIL, Attack

OWN, RAW = "own.test", "raw.test"
FETCHES = ("get", f"https://{OWN}:8443/")
ASKS = ("get", f"http://{RAW}:2222/")


IN_NETWORK = "203-0-113-10.net.test"
"""The name of an address in a network that a rule allows."""


def _request(host: str) -> str:
    return f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode().hex()


def _knocks(what: str, place: str, name: str | None = None) -> Attack:
    """Return an attempt to use a port that nobody listens on; `name` is what its address stands for."""
    reason = Reason.WRONG_PORT if name else Reason.NO_RULE
    return Attack(
        what, ("probe-tcp", place, "--timeout", "1s"), "connection refused", reason, name, control=FETCHES
    )


def _leads(what: str, name: str) -> Attack:
    return Attack(
        what, ("get", f"http://{name}/"), "closed", Reason.PRIVATE_ADDRESS, name, ("get", f"http://{ALLOWED}/")
    )


OPAQUE = (
    Attack(
        "TLS with the name's own server name", FETCHES, "200", control=FETCHES, arrives=("/",), host=f"{OWN}:8443",
        port=8443,
    ),
    *(
        Attack(
            f"TLS with {what}",
            ("get", f"https://{name}:8443/", "--connect", "{own}:8443"),
            "200",
            control=FETCHES,
            arrives=("/",),
            host=f"{name}:8443",
            port=8443,
        )
        for what, name in (("a server name without a rule", EVIL), ("another allowed server name", "wild.test"))
    ),
    Attack(
        "TLS without a server name", (*FETCHES, "--sni", ""), "200", control=FETCHES, arrives=("/",),
        host=f"{OWN}:8443", port=8443,
    ),
    *(
        Attack(
            f"HTTP with {what}",
            ("raw", "{raw}:2222", "--hex", _request(host), "--timeout", "400ms"),
            "200",
            control=ASKS,
            arrives=("/",),
            host=host,
            port=2222,
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
    Attack(
        "A query to the port of the resolver", ("resolve", EVIL, "--server", "{own}:53", "--timeout", "1s"),
        "connection refused", Reason.WRONG_PORT, OWN, FETCHES,
    ),
    _knocks("An address that stands for no name", "{unused}:8443"),
    _knocks("The port of such a name, at the shared address", "{envoy}:2222"),
    _leads("A name that leads to a private address", "in.test"),
    _leads("A name that leads to loopback, with `allow_private`", "in2.test"),
    Attack(
        "The name of an address in an allowed network", ("get", f"http://{IN_NETWORK}:2222/"), "200", control=ASKS,
        arrives=("/",), host=f"{IN_NETWORK}:2222", port=2222,
    ),
    Attack(
        "The same on another port", ("probe-tcp", f"{IN_NETWORK}:80", "--timeout", "1s"), "connection refused",
        Reason.WRONG_PORT, IN_NETWORK, FETCHES,
    ),
    *(
        Attack(what, ("resolve", name), "NXDOMAIN", Reason.NO_RULE, name, ("resolve", IN_NETWORK))
        for what, name in {
            "The name of an address outside of an allowed network": "203-0-113-12.net.test",
            "The name of a private address, below that of an allowed network": "10-9-9-9.net.test",
            "Another spelling of an address in an allowed network": "203-0-113-010.net.test",
            "An address in an allowed network, with dots": "203.0.113.10.net.test",
            "A name below that of an address in an allowed network": f"x.{IN_NETWORK}",
            "The name of an allowed network itself": "net.test",
        }.items()
    ),
    Attack(
        "A name that does not exist", ("probe-tcp", "shell.test:22", "--timeout", "1s"), "a connection",
        Reason.NO_ADDRESS, "shell.test", FETCHES,
    ),
)  # fmt: skip
