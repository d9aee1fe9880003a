"""HTTP requests to hosts that no rule allows, and requests that can be read in two ways; sent octet for octet."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.attack import ALLOWED, DIRECT, EVIL, Attack

FETCHES = ("get", f"http://{ALLOWED}/", *DIRECT)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPGRADE = ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")


def head(line: str, *headers: str) -> bytes:
    """Return the head of a request."""
    return "\r\n".join([line, *headers, "", ""]).encode()


def request(line: str, *headers: str) -> bytes:
    """Return a request without a body, after which the connection ends."""
    return head(line, *headers, "Connection: close")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http2(*fields: tuple[str, str]) -> bytes:
    """Return a request over HTTP/2, each field as a literal (RFC 7541, section 6.2.2)."""
    block = b"".join(b"\0" + b"".join(bytes([len(word)]) + word.encode() for word in field) for field in fields)
    settings, end_of_all = frame(4, 0, 0, b""), 0x4 | 0x1
    return PREFACE + settings + frame(1, end_of_all, 1, block)


def pseudo(authority: str, path: str = "/") -> tuple[tuple[str, str], ...]:
    """Return the beginning of every request over HTTP/2."""
    return (":method", "GET"), (":scheme", "http"), (":path", path), (":authority", authority)


def _sent(content: bytes, port: int = 80) -> tuple[str, ...]:
    return ("raw", f"{{envoy}}:{port}", "--hex", content.hex(), "--timeout", "400ms")


def _arrives(what: str, content: bytes, target: str = "/", *, host: str = ALLOWED, result: str = "200") -> Attack:
    return Attack(what, _sent(content), result, control=FETCHES, arrives=(target,), host=host, port=80)


def _refused(
    what: str, content: bytes, result: str, reason: Reason | None, name: str | None, *, port: int = 80
) -> Attack:
    return Attack(what, _sent(content, port), result, reason, name, FETCHES)


_GET = "GET / HTTP/1.1"
_HOST = f"Host: {ALLOWED}"
_NO_RULE = ("403", Reason.NO_RULE)
_BAD_NAME = ("403", Reason.BAD_NAME)
_UNREADABLE = ("400", Reason.BAD_NAME)
_BAD_REQUEST = ("400", Reason.BAD_REQUEST)
_CONNECT = ("404", Reason.BAD_REQUEST)

REQUESTS = (
    _arrives("An allowed host", request(_GET, _HOST)),
    _arrives("An allowed host in odd case", request(_GET, "Host: PuB.TesT"), host="PuB.TesT"),
    _arrives("An allowed host with its port", request(_GET, f"Host: {ALLOWED}:80")),
    _arrives("An allowed host with another port", request(_GET, f"Host: {ALLOWED}:2222")),
    _arrives("An allowed host with a dot at its end", request(_GET, f"Host: {ALLOWED}.")),
    _arrives("The absolute form", request(f"GET http://{ALLOWED}/ HTTP/1.1", _HOST)),
    _arrives("The absolute form against the host", request(f"GET http://{ALLOWED}/ HTTP/1.1", f"Host: {EVIL}")),
    _arrives("The absolute form with userinfo", request(f"GET http://{EVIL}@{ALLOWED}/ HTTP/1.1", _HOST)),
    _arrives(
        "A forwarded host", request(_GET, _HOST, f"X-Forwarded-Host: {EVIL}", f"X-Envoy-Original-Host: {EVIL}")
    ),
    _arrives("A path that is a URL", request(f"GET /http://{EVIL}/ HTTP/1.1", _HOST), f"/http://{EVIL}/"),
    _arrives(
        "A host that answers with the address of another",
        request(f"GET /redirect?to=http://{EVIL}/ HTTP/1.1", _HOST),
        f"/redirect?to=http://{EVIL}/",
        result="302",
    ),
    _arrives("TRACE", request("TRACE / HTTP/1.1", _HOST)),
    Attack(
        "An allowed host, an octet at a time",
        (*_sent(request(_GET, _HOST)), "--pieces"),
        "200",
        control=FETCHES,
        arrives=("/",),
        port=80,
    ),
    _arrives("HTTP/2 with prior knowledge", http2(*pseudo(ALLOWED)), result="HTTP/2"),
    _arrives(
        "A host below one that is denied alone", request(_GET, "Host: x.no.deny.test"), host="x.no.deny.test"
    ),
    *(
        _refused(what, request(_GET, f"Host: {host}"), "403", Reason.DENIED, host)
        for what, host in {
            "A denied host": "no.deny.test",
            "A denied host in odd case": "No.Deny.Test",
            "A host that is denied over HTTP only": "half.deny.test",
            "A host below a denied subtree": "x.gone.deny.test",
            "An exception that is allowed over TLS only": "back.gone.deny.test",
        }.items()
    ),
    _refused("A host without a rule", request(_GET, f"Host: {EVIL}"), *_NO_RULE, EVIL),
    _refused(
        "A host that begins like an allowed one",
        request(_GET, f"Host: {ALLOWED}.{EVIL}"),
        *_NO_RULE,
        f"{ALLOWED}.{EVIL}",
    ),
    _refused("A host with a rule for TLS only", request(_GET, "Host: wild.test"), *_NO_RULE, "wild.test"),
    _refused(
        "A host with a rule for another port only",
        request(_GET, "Host: web.test"),
        *_NO_RULE,
        "web.test",
        port=8080,
    ),
    _refused(
        "Two hosts, the allowed one first", request(_GET, _HOST, f"Host: {EVIL}"), *_BAD_NAME, f"{ALLOWED},{EVIL}"
    ),
    _refused(
        "Two hosts, the allowed one last", request(_GET, f"Host: {EVIL}", _HOST), *_BAD_NAME, f"{EVIL},{ALLOWED}"
    ),
    _refused("The same host twice", request(_GET, _HOST, _HOST), *_BAD_NAME, f"{ALLOWED},{ALLOWED}"),
    _refused("Two hosts in one header", request(_GET, f"Host: {ALLOWED}, {EVIL}"), *_UNREADABLE, None),
    _refused("A host that is continued", request(_GET, _HOST, f" {EVIL}"), *_UNREADABLE, None),
    _refused("A space before the colon", request(_GET, f"Host : {ALLOWED}", f"Host: {EVIL}"), *_BAD_REQUEST, None),
    _refused("Line feeds only", f"{_GET}\nHost: {EVIL}\n{_HOST}\n\n".encode(), *_BAD_NAME, f"{EVIL},{ALLOWED}"),
    _refused("No host", request(_GET), *_BAD_REQUEST, None),
    _refused("An empty host", request(_GET, "Host:"), *_BAD_NAME, ""),
    _refused("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", "426", Reason.BAD_REQUEST, None),
    _refused("The absolute form of another host", request(f"GET http://{EVIL}/ HTTP/1.1", _HOST), *_NO_RULE, EVIL),
    _refused(
        "The absolute form with the allowed host as userinfo",
        request(f"GET http://{ALLOWED}@{EVIL}/ HTTP/1.1", _HOST),
        *_NO_RULE,
        EVIL,
    ),
    _refused(
        "The allowed host as userinfo", request(_GET, f"Host: {ALLOWED}@{EVIL}"), *_BAD_NAME, f"{ALLOWED}@{EVIL}"
    ),
    _refused(
        "Another host as userinfo", request(_GET, f"Host: {EVIL}@{ALLOWED}"), *_BAD_NAME, f"{EVIL}@{ALLOWED}"
    ),
    _refused("A host and a path", request(_GET, f"Host: {EVIL}/{ALLOWED}"), *_UNREADABLE, None),
    _refused("A host and a query", request(_GET, f"Host: {EVIL}?.{ALLOWED}"), *_UNREADABLE, None),
    _refused("A host and a fragment", request(_GET, f"Host: {EVIL}#.{ALLOWED}"), *_UNREADABLE, None),
    _refused(
        "A port that is a host", request(_GET, f"Host: {EVIL}:80:{ALLOWED}"), *_BAD_NAME, f"{EVIL}:80:{ALLOWED}"
    ),
    _refused("An encoded dot", request(_GET, "Host: evil%2etest"), *_BAD_NAME, "evil%2etest"),
    _refused("An escape in a host", request(_GET, r"Host: x\.wild.test"), *_UNREADABLE, None),
    _refused("Two dots at the end", request(_GET, f"Host: {ALLOWED}.."), *_BAD_NAME, f"{ALLOWED}."),
    _refused("A space in a host", request(_GET, f"Host: {ALLOWED} {EVIL}"), *_UNREADABLE, None),
    _refused("A NUL behind an allowed host", request(_GET, f"Host: {ALLOWED}\0.{EVIL}"), *_BAD_REQUEST, None),
    _refused("A NUL in a path", request("GET /\0 HTTP/1.1", f"Host: {EVIL}"), *_BAD_REQUEST, None),
    _refused("A host in brackets", request(_GET, f"Host: [{ALLOWED}]"), *_BAD_NAME, f"[{ALLOWED}]"),
    _refused(
        "An allowed host behind brackets", request(_GET, f"Host: [::1].{ALLOWED}"), *_BAD_NAME, f"[::1].{ALLOWED}"
    ),
    _refused("TRACE of another host", request("TRACE / HTTP/1.1", f"Host: {EVIL}"), *_NO_RULE, EVIL),
    Attack(
        "A host without a rule, an octet at a time",
        (*_sent(request(_GET, f"Host: {EVIL}")), "--pieces"),
        *_NO_RULE,
        EVIL,
        FETCHES,
    ),
    _refused("CONNECT", request(f"CONNECT {ALLOWED}:80 HTTP/1.1", f"Host: {ALLOWED}:80"), *_CONNECT, ALLOWED),
    _refused("CONNECT to another host", request(f"CONNECT {EVIL}:80 HTTP/1.1", _HOST), *_CONNECT, EVIL),
    _refused(
        "CONNECT against the host", request(f"CONNECT {ALLOWED}:80 HTTP/1.1", f"Host: {EVIL}"), *_CONNECT, ALLOWED
    ),
    _refused("HTTP/2 to another host", http2(*pseudo(EVIL)), "HTTP/2", Reason.NO_RULE, EVIL),
    _refused(
        "HTTP/2 with a host that is another",
        http2(*pseudo(EVIL), ("host", ALLOWED)),
        "HTTP/2",
        Reason.NO_RULE,
        EVIL,
    ),
    _refused(
        "HTTP/2 with two authorities",
        http2(*pseudo(ALLOWED), (":authority", EVIL)),
        "closed",
        Reason.BAD_REQUEST,
        None,
    ),
    _refused(
        "HTTP/2 that connects",
        http2((":method", "CONNECT"), (":authority", f"{EVIL}:80")),
        "HTTP/2",
        Reason.BAD_REQUEST,
        EVIL,
    ),
    _refused("HTTP/2 with userinfo", http2(*pseudo(f"{ALLOWED}@{EVIL}")), "closed", Reason.BAD_REQUEST, None),
    _refused("An upgrade of another host", request(_GET, f"Host: {EVIL}", *UPGRADE), *_NO_RULE, EVIL),
)
"""Single requests."""

SMUGGLED = request("GET /smuggled HTTP/1.1", f"Host: {EVIL}")


def _post(*headers: str) -> bytes:
    return head("POST / HTTP/1.1", _HOST, *headers)


def _behind(
    what: str, content: bytes, result: str, reason: Reason | None, name: str | None, *arrives: str
) -> Attack:
    sent = _sent(content + SMUGGLED)
    return Attack(f"{what}, then a request", sent, result, reason, name, FETCHES, arrives, port=80)


_END_OF_CHUNKS = b"0\r\n\r\n"
_CHUNKED = ("Transfer-Encoding: chunked", f"Content-Length: {len(SMUGGLED) + len(_END_OF_CHUNKS)}")
_ALL_CHUNKED = ("Transfer-Encoding: chunked", f"Content-Length: {len(_END_OF_CHUNKS)}")
_OTHER_CHUNKS = ("Transfer-Encoding: xchunked", f"Content-Length: {len(_END_OF_CHUNKS)}")
_WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

BEHIND = (
    _behind("A body of no length", request("POST / HTTP/1.1", _HOST, "Content-Length: 0"), "200", None, None, "/"),
    _behind("Two lengths", _post("Content-Length: 0", f"Content-Length: {len(SMUGGLED)}"), *_BAD_REQUEST, None),
    _behind("A length and chunks", _post(*_CHUNKED) + _END_OF_CHUNKS, *_BAD_REQUEST, None),
    _behind("Chunks and a length", _post(*reversed(_CHUNKED)) + _END_OF_CHUNKS, *_BAD_REQUEST, None),
    _behind("Chunks and a length of all", _post(*_ALL_CHUNKED) + _END_OF_CHUNKS, *_BAD_REQUEST, None),
    _behind("Chunks twice", _post(_CHUNKED[0], _CHUNKED[0]) + _END_OF_CHUNKS, "501", Reason.BAD_REQUEST, None),
    _behind("A length in the line below", _post("Content-Length:", " 0"), "200, 403", Reason.NO_RULE, EVIL, "/"),
    _behind("A length with a sign", _post("Content-Length: +0"), *_BAD_REQUEST, None),
    _behind("Chunks that are called otherwise", _post(*_OTHER_CHUNKS) + _END_OF_CHUNKS, *_BAD_REQUEST, None),
    _behind("A whole request", head(_GET, _HOST), "200, 403", Reason.NO_RULE, EVIL, "/"),
    _behind(
        "An upgrade to HTTP/2",
        head(_GET, _HOST, "Connection: Upgrade", *UPGRADE),
        "200, 403",
        Reason.NO_RULE,
        EVIL,
        "/",
    ),
    _behind("An upgrade to WebSocket", head(_GET, _HOST, *_WEBSOCKET), "200", None, None, "/"),
)
"""Requests to the allowed origin, with another one for another origin behind it."""
