"""Names that no rule allows, as DNS questions and as server names in TLS."""

from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.stack.container import REFUSED_NAME
from devkit.attacks.attack import ALLOWED, DIRECT, EVIL, FETCHES, Attack, Command, outside, raw
from devkit.dns import query
from devkit.hellos import client_hello, in_records

RESOLVES = ("resolve", ALLOWED)


def _names(*names: tuple[int, str]) -> bytes:
    """Return the extension with names of a type each (RFC 6066, section 3)."""
    entries = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name.encode() for kind, name in names)
    content = len(entries).to_bytes(2, "big") + entries
    return b"\0\0" + len(content).to_bytes(2, "big") + content


def _question(name: bytes, questions: int = 1, more: bytes = b"") -> bytes:
    """Return a query for a name as it is on the wire (RFC 1035, section 4.1)."""
    return b"\0\1\1\0" + questions.to_bytes(2, "big") + bytes(6) + name + b"\0\1\0\1" + more


def _asked(name: str, *options: str) -> Command:
    return ("resolve", name, *options)


def _host(name: str, port: int) -> str:
    """Return what a URL has as its host, and a client as its Host header."""
    return name if port == Protocol.HTTPS.default_port else f"{name}:{port}"


def _tls(name: str, port: int = 443, *options: str) -> Command:
    return ("get", f"https://{_host(name, port)}/", *DIRECT, *options)


def _named(server_name: str) -> Command:
    return _tls(ALLOWED, 443, "--sni", server_name)


def _raw(content: bytes) -> Command:
    return raw("{envoy}:443", content)


def _hello(name: str) -> Command:
    return _raw(client_hello(name.encode()))


def _passes(
    what: str, name: str, port: int = 443, *, options: Command = (), host: str = "", because: str = ""
) -> Attack:
    host = host or _host(name, port)
    command = _tls(name, port, *options)
    return Attack(what, command, "200", control=FETCHES, arrives=("/",), host=host, port=port, because=because)


def _closed(what: str, command: Command, name: str | None, reason: Reason = Reason.NO_RULE) -> Attack:
    return Attack(what, command, "closed", reason, name, FETCHES)


def _stream(content: bytes, *options: str) -> Command:
    return raw("{resolver}:53", content, *options, "--timeout", "400ms")


def _framed(content: bytes) -> Command:
    """Send a message as TCP carries it (RFC 1035, section 4.2.2)."""
    return _stream(len(content).to_bytes(2, "big") + content)


def _answer(name: str) -> bytes:
    message = bytearray(query(name))
    message[2] |= 0x80
    return bytes(message)


_CHAOS = ("--type", "TXT", "--class", "CH")
_NO_RECORD = ("AAAA", "TXT", "MX", "NULL", "CNAME", "NS", "SRV", "HTTPS", "SVCB", "ANY")
_DATA = "aGVsbG8gd29ybGQ"
_TYPES = (
    *("AAAA", "TXT", "MX", "NULL", "CNAME", "NS", "SOA", "SRV", "NAPTR", "CAA", "DS", "DNSKEY", "TLSA", "URI"),
    *("HTTPS", "ANY"),
)
"""Types that tunnels use, or could. PTR is asked for directly: the engine's own resolver may not forward it."""

_ALERT = b"\x15\3\1\0\2\1\0"
_PLAIN = f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode()
_ECH = b"\xfe\x0d\0\x4a" + b"\0\0\1\0\1\7" + 2 * (b"\0\x20" + bytes(range(32)))
"""The extension that has a hidden name (RFC 9849), as everybody sees it whose name it is not."""

_OTHER_DOT = "\N{IDEOGRAPHIC FULL STOP}"
_LONG = "x" * 64 + ".wild.test"
_THERE = ("--server", "{resolver}")
"""Options of a question to the resolver itself, and not by the engine's."""


def _unknown(
    what: str, name: str, *options: str, reason: Reason = Reason.NO_RULE, control: Command = ()
) -> Attack:
    return Attack(what, _asked(name, *options), "NXDOMAIN", reason, name, (*RESOLVES, *control))


def _bad(what: str, command: Command, result: str, name: str | None, *control: str) -> Attack:
    reason = None if name is None else Reason.BAD_REQUEST
    return Attack(what, command, result, reason, name, (*RESOLVES, *control, *_THERE))


_TWO_QUESTIONS = _question(b"\3pub\4test\0", 2, b"\4evil\4test\0\0\1\0\1")
_HIDDEN, _IN_RECORDS = _raw(client_hello(None, _ECH)), _raw(in_records(client_hello(EVIL.encode()), 1))

QUESTIONS = (
    *(
        _unknown(what, name)
        for what, name in {
            "A name without a rule": EVIL,
            "A name that the firewall asks for itself": REFUSED_NAME,
            "A name below one with an exact rule": f"x.{ALLOWED}",
            "The parent of an allowed name": "test",
            "The end of an allowed name": "ub.test",
            "A name that ends like an allowed one": f"x{ALLOWED}",
            "A name that begins like an allowed one": "wild.test.evil",
            "Data in a name": f"{_DATA}.{EVIL}",
        }.items()
    ),
    *(
        _unknown(f"A name without a rule, type {kind}", EVIL, "--type", kind)
        for kind in ("AAAA", "TXT", "MX", "HTTPS", "ANY")
    ),
    *(_unknown(f"Data in a name, type {kind}", f"{_DATA}.{EVIL}", "--type", kind) for kind in _TYPES),
    _unknown("Data below a name with an exact rule, type TXT", f"{_DATA}.{ALLOWED}", "--type", "TXT"),
    *(
        Attack(f"{what}, type {kind}", _asked(name, "--type", kind), "no record", control=RESOLVES)
        for what, name, kinds in (
            ("Data below an allowed subtree", f"{_DATA}.wild.test", ("TXT",)),
            ("An allowed name", ALLOWED, _NO_RECORD),
        )
        for kind in kinds
    ),
    *(
        _unknown(f"A name without a rule, {what}", EVIL, *options, control=options)
        for what, options in {
            "over TCP": (*_THERE, "--tcp"),
            "of the resolver itself": _THERE,
            "of the engine's resolver": ("--server", "127.0.0.11"),
            "of the resolver's other address": ("--server", "{coredns}"),
        }.items()
    ),
    _unknown("A name without a rule, type PTR", EVIL, "--type", "PTR", *_THERE, control=_THERE),
    outside(
        "A name without a rule, of a name server in the internet",
        _asked(EVIL, "--server", "{nameserver}", "--timeout", "1s"),
        control=_asked(EVIL, "--server", "{nameserver}"),
    ),
    Attack(
        "A name without a rule, at the other slot's address, which nobody has",
        _asked(EVIL, "--server", "{other_coredns}", "--timeout", "300ms"),
        "no answer",
        control=RESOLVES,
    ),
    *(
        _bad(what, _asked(name, *options, *_THERE), "REFUSED", name, *["--tcp"] * ("XFR" in what))
        for what, name, *options in (
            ("All names at once (AXFR)", "test", "--type", "AXFR", "--tcp"),
            ("All names of an allowed one (AXFR)", ALLOWED, "--type", "AXFR", "--tcp"),
            ("What has changed (IXFR)", ALLOWED, "--type", "IXFR"),
            ("The version of the resolver, class CHAOS", "version.bind", *_CHAOS),
            ("An allowed name, class CHAOS", ALLOWED, "--class", "CH"),
            ("An allowed name, of any class", ALLOWED, "--class", "ANY"),
        )
    ),
    *(
        _bad(what, _asked(name, "--opcode", str(operation), *_THERE), "NOTIMP", name if read else "")
        for what, operation, name, read in (
            ("An inverse query", 1, ALLOWED, False),
            ("A query for the state", 2, ALLOWED, False),
            ("A notification", 4, ALLOWED, True),
            ("An update of an allowed name", 5, ALLOWED, False),
            ("An update of another name", 5, EVIL, False),
        )
    ),
    *(
        _bad(
            f"An allowed name, with version {version} of EDNS",
            _asked(ALLOWED, "--edns", str(version), *_THERE),
            "BADVERS",
            ALLOWED,
            "--edns",
            "0",
        )
        for version in (1, 255)
    ),
    *(
        _bad(f"{what}, over UDP", _stream(content, "--udp"), result, "" if result == "FORMERR" else None)
        for what, content, result in (
            ("A single octet", b"\0", "no answer"),
            ("Octets that are no message", bytes(range(256)), "FORMERR"),
            ("An answer to no question", _answer(ALLOWED), "no answer"),
            ("A name that points to itself", _question(b"\xc0\x0c"), "FORMERR"),
            ("A name that ends where it begins", _question(b"\1x\xc0\x0c"), "FORMERR"),
            ("A name of 257 octets", _question(4 * (b"\x3f" + 63 * b"a") + b"\0"), "FORMERR"),
            ("A label of a type that there is not", _question(b"\x84wild\4test\0"), "FORMERR"),
            ("Two questions", _TWO_QUESTIONS, "FORMERR"),
            ("No question", _question(b"", 0), "FORMERR"),
        )
    ),
    *(
        _bad(f"{what}, over TCP", _asked(name, *options, *_THERE, "--tcp"), result, read, "--tcp")
        for what, name, options, result, read in (
            ("The version of the resolver", "version.bind", _CHAOS, "REFUSED", "version.bind"),
            ("An allowed name, class CHAOS", ALLOWED, ("--class", "CH"), "REFUSED", ALLOWED),
            ("An update of another name", EVIL, ("--opcode", "5"), "NOTIMP", ""),
            ("A notification", ALLOWED, ("--opcode", "4"), "NOTIMP", ALLOWED),
            ("Version 1 of EDNS", ALLOWED, ("--edns", "1"), "BADVERS", ALLOWED),
        )
    ),
    *(
        _bad(f"{what}, over TCP", command, result, "", "--tcp")
        for what, command, result in (
            ("Octets that are no message", _framed(bytes(range(32))), "FORMERR"),
            ("Two questions", _framed(_TWO_QUESTIONS), "FORMERR"),
            ("A message without an octet", _framed(b""), "closed"),
            ("An answer to no question", _framed(_answer(ALLOWED)), "closed"),
            ("A message that does not end", _stream(b"\0\x20" + bytes(4)), "closed"),
            ("Half of a length", _stream(b"\0"), "closed"),
            ("TLS to the resolver", _stream(client_hello(EVIL.encode())), "closed"),
        )
    ),
    *(
        _unknown(what, name, reason=Reason.DENIED)
        for what, name in {
            "A denied name below an allowed one": "no.deny.test",
            "A denied name in odd case": "No.Deny.Test",
            "The top of a denied subtree": "gone.deny.test",
            "A name below a denied subtree": "a.b.gone.deny.test",
            "A name below an allowed exception": "x.back.gone.deny.test",
        }.items()
    ),
    *(
        _unknown(f"A denied name, type {kind}", "no.deny.test", "--type", kind, reason=Reason.DENIED)
        for kind in ("AAAA", "TXT", "HTTPS")
    ),
    *(
        Attack(what, _asked(name), "an address", control=RESOLVES)
        for what, name in {
            "A name below one that is denied alone": "x.no.deny.test",
            "An allowed exception of a denied subtree": "back.gone.deny.test",
            "A name that is denied over HTTP only": "half.deny.test",
            "An allowed name in odd case below a subtree": "aBc.wIlD.tEsT",
        }.items()
    ),
    *(
        _unknown(f"{what} in a name", name, reason=Reason.BAD_NAME)
        for what, name in {
            "An escape": r"x\.wild.test",
            "A NUL": r"x\000.wild.test",
            "A NUL behind an allowed name": rf"{ALLOWED}\000.{EVIL}",
            "Brackets": "[x].wild.test",
            "Userinfo": rf"x\@{ALLOWED}",
        }.items()
    ),
)

SERVER_NAMES = (
    *(
        _passes(what, name)
        for what, name in {
            "An allowed server name": ALLOWED,
            "An allowed server name in upper case": "PUB.test",
            "A server name with a subtree rule": "wild.test",
            "A server name far below one with a subtree rule": "d.c.b.a.wild.test",
            "A server name below one that is denied alone": "x.no.deny.test",
            "A server name that is an allowed exception of a denied subtree": "back.gone.deny.test",
            "A server name that is denied over HTTP only": "half.deny.test",
        }.items()
    ),
    _passes("An allowed server name on another port with a rule", ALLOWED, 8443),
    *(
        _closed(what, _tls(name), name)
        for what, name in {
            "A server name without a rule": EVIL,
            f"A server name that we use ourselves, {REFUSED_NAME}": REFUSED_NAME,
            "A server name that we use ourselves, lookup.clawker-fw.invalid": "lookup.clawker-fw.invalid",
            "A server name below one with an exact rule": f"x.{ALLOWED}",
            "A server name that ends like an allowed one": "evil-wild.test",
            "A server name with a rule for HTTP only": "web.test",
            "A server name with a rule for SSH only": "shell.test",
        }.items()
    ),
    *(
        _closed(what, _tls(name), name.lower(), Reason.DENIED)
        for what, name in {
            "A denied server name, at the address of its subtree": "no.deny.test",
            "A denied server name in upper case": "NO.DENY.TEST",
            "A server name at the top of a denied subtree": "gone.deny.test",
            "A server name below a denied subtree": "x.gone.deny.test",
            "A server name below an allowed exception": "x.back.gone.deny.test",
        }.items()
    ),
    *(
        _closed(what, command, *recorded)
        for what, command, *recorded in (
            ("Another server name than the URL's", _named(EVIL), EVIL),
            ("No server name", _named(""), None, Reason.NO_SERVER_NAME),
            ("A server name with a rule for another port only", _tls("wild.test", 8443), "wild.test"),
            ("TLS on a port for HTTP", _tls(ALLOWED, 8080), ALLOWED),
            ("An escape in a server name", _named(r"x\.wild.test"), "invalid:x_.wild.test", Reason.BAD_NAME),
            ("A space in a server name", _named("x .wild.test"), "invalid:x_.wild.test", Reason.BAD_NAME),
            ("A label of 64 letters in a server name", _named(_LONG), _LONG),
        )
    ),
    *(
        Attack(what, _hello(name), "400", Reason.BAD_REQUEST, None, FETCHES)
        for what, name in {
            "A NUL behind an allowed server name": f"{ALLOWED}\0.{EVIL}",
            "An allowed server name behind a NUL": f"{EVIL}\0.{ALLOWED}",
        }.items()
    ),
    *(
        _closed(what, _hello(name), recorded, Reason.BAD_NAME)
        for what, name, recorded in (
            ("A server name in brackets", f"[{ALLOWED}]", f"invalid:_{ALLOWED}_"),
            ("A server name with userinfo", f"{EVIL}@{ALLOWED}", f"invalid:{EVIL}_{ALLOWED}"),
            ("A server name with a port", f"{ALLOWED}:443", f"invalid:{ALLOWED}_443"),
            ("A server name with a dot at its end", f"{ALLOWED}.", f"{ALLOWED}."),
            ("A server name with a dot of another script", f"pub{_OTHER_DOT}test", "invalid:pub___test"),
        )
    ),
    *(
        Attack(what, _raw(client_hello(None, names)), "400", Reason.BAD_REQUEST, None, FETCHES)
        for what, names in {
            "Two server names, the allowed one first": _names((0, ALLOWED), (0, EVIL)),
            "Two server names, the allowed one last": _names((0, EVIL), (0, ALLOWED)),
            "Two extensions with a server name, the allowed one first": _names((0, ALLOWED)) + _names((0, EVIL)),
            "Two extensions with a server name, the allowed one last": _names((0, EVIL)) + _names((0, ALLOWED)),
            "An allowed server name of another type": _names((1, ALLOWED)),
            "A server name of another type behind an allowed one": _names((0, ALLOWED), (1, EVIL)),
            "An empty server name": _names((0, "")),
        }.items()
    ),
    Attack("TLS that begins with an alert", _raw(_ALERT + client_hello(EVIL.encode())), "closed", control=FETCHES),
    _passes("An allowed server name, an octet at a time", ALLOWED, options=("--pieces",)),
    _closed("A server name without a rule, an octet at a time", _tls(EVIL, 443, "--pieces"), EVIL),
    _closed("A server name without a rule, in records of one octet", _IN_RECORDS, EVIL),
    _closed("A hidden server name (ECH) without an outer one", _HIDDEN, None, Reason.NO_SERVER_NAME),
    _closed("A hidden server name (ECH) behind one without a rule", _tls(ALLOWED, 443, "--ech", EVIL), EVIL),
    _passes(
        "A hidden server name (ECH) behind an allowed one",
        EVIL,
        options=("--ech", ALLOWED),
        because="TLS is not decrypted, so only the outer name is visible. The host decides about a hidden one.",
    ),
    _passes(
        "Another host inside TLS with an allowed server name (domain fronting)",
        ALLOWED,
        options=("--host", EVIL),
        host=EVIL,
        because="TLS is not decrypted, so only the allowed host sees the requests in it.",
    ),
    _passes(
        "Data in a server name below an allowed subtree",
        f"{_DATA}.wild.test",
        because="With a subtree rule, the agent chooses the labels. Envoy looks the name up, so the domain's name "
        "servers and the host see them.",
    ),
    Attack("SSH on a port for TLS", _raw(b"SSH-2.0-x\r\n"), "400", Reason.BAD_REQUEST, None, FETCHES),
    Attack("HTTP on a port for TLS", _raw(_PLAIN), "403", Reason.NO_RULE, ALLOWED, FETCHES),
)
"""What is sent to Envoy's ports for TLS."""
