"""Names that no rule allows, as DNS questions and as server names in TLS."""

from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.schema import Protocol
from devkit.attacks.attack import ALLOWED, DIRECT, EVIL, Attack, Command

RESOLVES = ("resolve", ALLOWED)
FETCHES = ("get", f"https://{ALLOWED}/", *DIRECT)


def _asked(name: str, *options: str) -> Command:
    return ("resolve", name, *options)


def _host(name: str, port: int) -> str:
    """Return what a URL has as its host, and a client as its Host header."""
    return name if port == Protocol.HTTPS.default_port else f"{name}:{port}"


def _tls(name: str, port: int = 443, *, server_name: str | None = None) -> Command:
    return (
        "get",
        f"https://{_host(name, port)}/",
        *DIRECT,
        *(() if server_name is None else ("--sni", server_name)),
    )


def _named(server_name: str) -> Command:
    return _tls(ALLOWED, server_name=server_name)


def _raw(content: bytes) -> Command:
    return ("raw", "{envoy}:443", "--hex", content.hex())


def _passes(what: str, name: str, port: int = 443) -> Attack:
    host = _host(name, port)
    return Attack(what, _tls(name, port), "200", control=FETCHES, arrives=("/",), host=host, port=port)


def _closed(what: str, command: Command, reason: Reason, name: str | None) -> Attack:
    return Attack(what, command, "closed", reason, name, FETCHES)


_PLAIN = f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode()
_LONG = "x" * 64 + ".wild.test"
_NO_RULE = ("NXDOMAIN", Reason.NO_RULE)

QUESTIONS = (
    *(
        Attack(what, _asked(name), *_NO_RULE, name, RESOLVES)
        for what, name in {
            "A name without a rule": EVIL,
            "A name below one with an exact rule": f"x.{ALLOWED}",
            "The parent of an allowed name": "test",
            "The end of an allowed name": "ub.test",
            "A name that ends like an allowed one": f"x{ALLOWED}",
            "A name that begins like an allowed one": "wild.test.evil",
            "Data in a name": "aGVsbG8gd29ybGQ.evil.test",
        }.items()
    ),
    *(
        Attack(f"A name without a rule, type {kind}", _asked(EVIL, "--type", kind), *_NO_RULE, EVIL, RESOLVES)
        for kind in ("AAAA", "TXT", "MX", "HTTPS", "ANY")
    ),
    *(
        Attack(f"An allowed name, type {kind}", _asked(ALLOWED, "--type", kind), "no record", control=RESOLVES)
        for kind in ("AAAA", "TXT", "MX", "HTTPS", "SVCB", "ANY")
    ),
    Attack(
        "A name without a rule, over TCP",
        _asked(EVIL, "--server", "{resolver}", "--tcp"),
        *_NO_RULE,
        EVIL,
        (*RESOLVES, "--server", "{resolver}", "--tcp"),
    ),
    Attack(
        "A name without a rule, of the resolver itself",
        _asked(EVIL, "--server", "{resolver}"),
        *_NO_RULE,
        EVIL,
        (*RESOLVES, "--server", "{resolver}"),
    ),
    Attack(
        "A name without a rule, of the engine's resolver",
        _asked(EVIL, "--server", "127.0.0.11"),
        *_NO_RULE,
        EVIL,
        (*RESOLVES, "--server", "127.0.0.11"),
    ),
    Attack(
        "A name without a rule, of a name server in the internet",
        _asked(EVIL, "--server", "{nameserver}", "--timeout", "1s"),
        "no answer",
        control=_asked(EVIL, "--server", "{nameserver}"),
        freely=True,
    ),
    Attack(
        "All names at once (AXFR)",
        _asked("test", "--type", "AXFR", "--server", "{resolver}", "--tcp"),
        "REFUSED",
        Reason.BAD_REQUEST,
        "test",
        (*RESOLVES, "--server", "{resolver}", "--tcp"),
    ),
    *(
        Attack(what, _asked(name), "NXDOMAIN", Reason.DENIED, name, RESOLVES)
        for what, name in {
            "A denied name below an allowed one": "no.deny.test",
            "A denied name in odd case": "No.Deny.Test",
            "The top of a denied subtree": "gone.deny.test",
            "A name below a denied subtree": "a.b.gone.deny.test",
            "A name below an allowed exception": "x.back.gone.deny.test",
        }.items()
    ),
    *(
        Attack(
            f"A denied name, type {kind}",
            _asked("no.deny.test", "--type", kind),
            "NXDOMAIN",
            Reason.DENIED,
            "no.deny.test",
            RESOLVES,
        )
        for kind in ("AAAA", "TXT", "HTTPS")
    ),
    *(
        Attack(what, _asked(name), "an address", control=RESOLVES)
        for what, name in {
            "A name below one that is denied alone": "x.no.deny.test",
            "An allowed exception of a denied subtree": "back.gone.deny.test",
            "A name that is denied over HTTP only": "half.deny.test",
        }.items()
    ),
    Attack("An escape in a name", _asked(r"x\.wild.test"), "NXDOMAIN", Reason.BAD_NAME, r"x\.wild.test", RESOLVES),
)

SERVER_NAMES = (
    _passes("An allowed server name", ALLOWED),
    _passes("An allowed server name in upper case", "PUB.test"),
    _passes("An allowed server name on another port with a rule", ALLOWED, 8443),
    _passes("A server name with a subtree rule", "wild.test"),
    _passes("A server name far below one with a subtree rule", "d.c.b.a.wild.test"),
    _closed("A server name without a rule", _tls(EVIL), Reason.NO_RULE, EVIL),
    _closed("A server name below one with an exact rule", _tls(f"x.{ALLOWED}"), Reason.NO_RULE, f"x.{ALLOWED}"),
    _closed(
        "A server name that ends like an allowed one", _tls("evil-wild.test"), Reason.NO_RULE, "evil-wild.test"
    ),
    _closed("Another server name than the URL's", _tls(ALLOWED, server_name=EVIL), Reason.NO_RULE, EVIL),
    _closed("No server name", _tls(ALLOWED, server_name=""), Reason.NO_SERVER_NAME, None),
    _closed("A server name with a rule for HTTP only", _tls("web.test"), Reason.NO_RULE, "web.test"),
    _closed(
        "A server name with a rule for another port only", _tls("wild.test", 8443), Reason.NO_RULE, "wild.test"
    ),
    _closed("TLS on a port for HTTP", _tls(ALLOWED, 8080), Reason.NO_RULE, ALLOWED),
    _passes("A server name below one that is denied alone", "x.no.deny.test"),
    _passes("An allowed exception of a denied subtree", "back.gone.deny.test"),
    _passes("A server name that is denied over HTTP only", "half.deny.test"),
    _closed(
        "A denied server name, at the address of its subtree", _tls("no.deny.test"), Reason.DENIED, "no.deny.test"
    ),
    _closed("A denied server name in upper case", _tls("NO.DENY.TEST"), Reason.DENIED, "no.deny.test"),
    _closed("The top of a denied subtree", _tls("gone.deny.test"), Reason.DENIED, "gone.deny.test"),
    _closed("A server name below a denied subtree", _tls("x.gone.deny.test"), Reason.DENIED, "x.gone.deny.test"),
    _closed(
        "A server name below an allowed exception",
        _tls("x.back.gone.deny.test"),
        Reason.DENIED,
        "x.back.gone.deny.test",
    ),
    _closed("A server name with a rule for SSH only", _tls("shell.test"), Reason.NO_RULE, "shell.test"),
    _closed("An escape in a server name", _named(r"x\.wild.test"), Reason.BAD_NAME, "invalid:x_.wild.test"),
    _closed("A space in a server name", _named("x .wild.test"), Reason.BAD_NAME, "invalid:x_.wild.test"),
    _closed("A label of 64 letters in a server name", _named(_LONG), Reason.NO_RULE, _LONG),
    Attack("SSH on a port for TLS", _raw(b"SSH-2.0-x\r\n"), "400", Reason.BAD_REQUEST, None, FETCHES),
    Attack("HTTP on a port for TLS", _raw(_PLAIN), "403", Reason.NO_RULE, ALLOWED, FETCHES),
)
"""What is sent to Envoy's ports for TLS."""
