"""HTTP requests to hosts that no rule allows, and requests that can be read in two ways; sent octet for octet."""

from collections.abc import Iterable

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.container import REFUSED_NAME
from devkit.attacks.attack import ALLOWED, EVIL, FETCHES_HTTP, Attack, Command, raw
from devkit.requests import WEBSOCKET

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPGRADE = ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode()


def request(line: str, *headers: str) -> bytes:
    """Return a request without a body, after which the connection ends."""
    return head(line, *headers, "Connection: close")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


Fields = tuple[tuple[str, str], ...]


def block(fields: Fields) -> bytes:
    """Return fields of HTTP/2, each as a literal (RFC 7541, section 6.2.2)."""
    return b"".join(b"\0" + b"".join(bytes([len(word)]) + word.encode() for word in field) for field in fields)


_DATA, _HEADERS, _SETTINGS = 0, 1, 4
"""Kinds of frames (RFC 9113, section 6)."""

_END_OF_STREAM, _END_OF_HEADERS = 0x1, 0x4


def http2(*fields: tuple[str, str], trailers: Fields = ()) -> bytes:
    """Return a request over HTTP/2; with trailers, which come after an octet of a body."""
    if not trailers:
        return at_once([fields], complete=True)
    end = frame(_HEADERS, _END_OF_HEADERS | _END_OF_STREAM, 1, block(trailers))
    return at_once([fields], complete=False) + frame(_DATA, 0, 1, b"x") + end


def at_once(requests: Iterable[Fields], *, complete: bool) -> bytes:
    """Return requests over HTTP/2 on one connection. Unless they are complete, each has a body that is to come."""
    flags = _END_OF_HEADERS | (_END_OF_STREAM if complete else 0)
    frames = (frame(_HEADERS, flags, 2 * at + 1, block(fields)) for at, fields in enumerate(requests))
    return PREFACE + frame(_SETTINGS, 0, 0, b"") + b"".join(frames)


def pseudo(authority: str, path: str = "/", method: str = "GET") -> Fields:
    return (":method", method), (":scheme", "http"), (":path", path), (":authority", authority)


def sent(content: bytes, port: int = 80) -> Command:
    return raw(f"{{envoy}}:{port}", content, "--timeout", "400ms")


def _arrives(
    what: str, content: bytes, target: str = "/", *options: str, host: str = ALLOWED, result: str = "200"
) -> Attack:
    command = (*sent(content), *options)
    return Attack(what, command, result, control=FETCHES_HTTP, arrives=(target,), host=host, port=80)


def refused(
    what: str, content: bytes, result: str, reason: Reason | None, name: str | None, *options: str, port: int = 80
) -> Attack:
    """Return a request that Envoy refuses. What is on record is the name."""
    return Attack(what, (*sent(content, port), *options), result, reason, name, FETCHES_HTTP)


_GET = "GET / HTTP/1.1"
_HOST = f"Host: {ALLOWED}"
NO_RULE = ("403", Reason.NO_RULE)
BAD_NAME = ("403", Reason.BAD_NAME)
_UNREADABLE = ("400", Reason.BAD_NAME)
BAD_REQUEST = ("400", Reason.BAD_REQUEST)
_CONNECT = ("404", Reason.BAD_REQUEST)
_NOT_HERE = ("403", Reason.BAD_REQUEST)
_OF_WEB = request(_GET, "Host: web.test")
_TUNNEL = ((":method", "CONNECT"), (":authority", f"{EVIL}:80"))

REQUESTS = (
    *(
        _arrives(what, content)
        for what, content in {
            "An allowed host": request(_GET, _HOST),
            "An allowed host with its port": request(_GET, f"Host: {ALLOWED}:80"),
            "An allowed host with another port": request(_GET, f"Host: {ALLOWED}:2222"),
            "An allowed host with a dot at its end": request(_GET, f"Host: {ALLOWED}."),
            "An allowed host between tabs": request(_GET, f"Host:\t{ALLOWED}\t"),
            "An allowed host with a port that there is not": request(_GET, f"Host: {ALLOWED}:99999"),
            "The absolute form": request(f"GET http://{ALLOWED}/ HTTP/1.1", _HOST),
            "The absolute form against the host": request(f"GET http://{ALLOWED}/ HTTP/1.1", f"Host: {EVIL}"),
            "The absolute form with userinfo": request(f"GET http://{EVIL}@{ALLOWED}/ HTTP/1.1", _HOST),
            "A forwarded host": request(
                _GET, _HOST, f"X-Forwarded-Host: {EVIL}", f"X-Envoy-Original-Host: {EVIL}"
            ),
            "TRACE": request("TRACE / HTTP/1.1", _HOST),
            "Trailers with another host": head(
                "POST / HTTP/1.1", _HOST, "Trailer: Host", "Transfer-Encoding: chunked", "Connection: close"
            )
            + f"0\r\nHost: {EVIL}\r\n\r\n".encode(),
            "Headers that ask Envoy to try again": request(
                _GET,
                _HOST,
                "X-Envoy-Retry-On: retriable-status-codes",
                "X-Envoy-Retriable-Status-Codes: 200",
                "X-Envoy-Max-Retries: 5",
            ),
            "Headers that tell Envoy where to go": request(
                _GET, _HOST, "X-Envoy-Original-Dst-Host: 127.0.0.1:80", f"X-Envoy-Original-Path: http://{EVIL}/"
            ),
        }.items()
    ),
    _arrives("An allowed host in odd case", request(_GET, "Host: PuB.TesT"), host="PuB.TesT"),
    _arrives("A path that is a URL", request(f"GET /http://{EVIL}/ HTTP/1.1", _HOST), f"/http://{EVIL}/"),
    _arrives("A path that begins like a host", request(f"GET //{EVIL}/ HTTP/1.1", _HOST), f"//{EVIL}/"),
    _arrives(
        "A host that answers with the address of another",
        request(f"GET /redirect?to=http://{EVIL}/ HTTP/1.1", _HOST),
        f"/redirect?to=http://{EVIL}/",
        result="302",
    ),
    _arrives("An allowed host, an octet at a time", request(_GET, _HOST), "/", "--pieces"),
    *(
        _arrives(f"HTTP/2 {what}", content, result="HTTP/2")
        for what, content in {
            "with prior knowledge": http2(*pseudo(ALLOWED)),
            "to an allowed host, with a host that is another": http2(*pseudo(ALLOWED), ("host", EVIL)),
            "with trailers with another host": http2(*pseudo(ALLOWED, method="POST"), trailers=(("host", EVIL),)),
        }.items()
    ),
    _arrives(
        "A host below one that is denied alone", request(_GET, "Host: x.no.deny.test"), host="x.no.deny.test"
    ),
    *(
        refused(what, request(_GET, f"Host: {host}"), "403", Reason.DENIED, host)
        for what, host in {
            "A denied host": "no.deny.test",
            "A denied host in odd case": "No.Deny.Test",
            "A host that is denied over HTTP only": "half.deny.test",
            "A host below a denied subtree": "x.gone.deny.test",
            "An exception that is allowed over TLS only": "back.gone.deny.test",
        }.items()
    ),
    Attack(
        "An allowed host that ends the connection without an answer",
        sent(request("GET /nothing HTTP/1.1", _HOST)),
        "503",
        Reason.UNREACHABLE,
        ALLOWED,
        FETCHES_HTTP,
        ("/nothing", "/nothing"),  # sent once more
        port=80,
    ),
    *(
        refused(what, request(_GET, f"Host: {host}"), *NO_RULE, host)
        for what, host in {
            "A host without a rule": EVIL,
            "A host that we use ourselves": REFUSED_NAME,
            "A host that begins like an allowed one": f"{ALLOWED}.{EVIL}",
            "A host with a rule for TLS only": "wild.test",
        }.items()
    ),
    *(
        refused(what, request(_GET, f"Host: {host}"), *BAD_NAME, host)
        for what, host in {
            "The allowed host as userinfo": f"{ALLOWED}@{EVIL}",
            "Another host as userinfo": f"{EVIL}@{ALLOWED}",
            "A port that is a host": f"{EVIL}:80:{ALLOWED}",
            "An encoded dot": "evil%2etest",
            "A host in brackets": f"[{ALLOWED}]",
            "An allowed host behind brackets": f"[::1].{ALLOWED}",
            "A host with a port of no digits": f"{ALLOWED}:",
            "A host with a port of letters": f"{ALLOWED}:x",
        }.items()
    ),
    *(
        refused(what, request(_GET, f"Host: {host}"), *_UNREADABLE, None)
        for what, host in {
            "Two hosts in one header": f"{ALLOWED}, {EVIL}",
            "A host and a path": f"{EVIL}/{ALLOWED}",
            "A host and a query": f"{EVIL}?.{ALLOWED}",
            "A host and a fragment": f"{EVIL}#.{ALLOWED}",
            "An escape in a host": r"x\.wild.test",
            "A space in a host": f"{ALLOWED} {EVIL}",
            "A host with a dot of another script": "pub\N{IDEOGRAPHIC FULL STOP}test",
        }.items()
    ),
    *(
        refused(what, content, *BAD_NAME, name)
        for what, content, name in (
            ("Two hosts, the allowed one first", request(_GET, _HOST, f"Host: {EVIL}"), f"{ALLOWED},{EVIL}"),
            ("Two hosts, the allowed one last", request(_GET, f"Host: {EVIL}", _HOST), f"{EVIL},{ALLOWED}"),
            ("The same host twice", request(_GET, _HOST, _HOST), f"{ALLOWED},{ALLOWED}"),
            ("Line feeds only", f"{_GET}\nHost: {EVIL}\n{_HOST}\n\n".encode(), f"{EVIL},{ALLOWED}"),
            ("An empty host", request(_GET, "Host:"), ""),
            ("Two dots at the end", request(_GET, f"Host: {ALLOWED}.."), f"{ALLOWED}."),
        )
    ),
    *(
        refused(what, content, *NO_RULE, EVIL)
        for what, content in {
            "The absolute form of another host": request(f"GET http://{EVIL}/ HTTP/1.1", _HOST),
            "The absolute form with the allowed host as userinfo": request(
                f"GET http://{ALLOWED}@{EVIL}/ HTTP/1.1", _HOST
            ),
            "TRACE of another host": request("TRACE / HTTP/1.1", f"Host: {EVIL}"),
            "A WebSocket to another host": head(_GET, f"Host: {EVIL}", *WEBSOCKET),
            "An upgrade of another host": request(_GET, f"Host: {EVIL}", *UPGRADE),
        }.items()
    ),
    *(
        refused(what, content, *BAD_REQUEST, None)
        for what, content in {
            "A space before the colon": request(_GET, f"Host : {ALLOWED}", f"Host: {EVIL}"),
            "No host": request(_GET),
            "A NUL behind an allowed host": request(_GET, f"Host: {ALLOWED}\0.{EVIL}"),
            "A NUL in a path": request("GET /\0 HTTP/1.1", f"Host: {EVIL}"),
            "A host that is not to be forwarded": request(_GET, _HOST, "Connection: Host"),
            "The absolute form of another protocol": request(f"GET ftp://{ALLOWED}/ HTTP/1.1", _HOST),
            "The absolute form with a backslash": request(f"GET http://{EVIL}\\@{ALLOWED}/ HTTP/1.1", _HOST),
            "The header of a proxy before it (PROXY)": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n"
            + request(_GET, _HOST),
            "A version that there is not": request(f"{_GET} HTTP/1.1", _HOST),
        }.items()
    ),
    *(
        refused(what, content, *_CONNECT, name)
        for what, content, name in (
            ("CONNECT", request(f"CONNECT {ALLOWED}:80 HTTP/1.1", f"Host: {ALLOWED}:80"), ALLOWED),
            ("CONNECT to another host", request(f"CONNECT {EVIL}:80 HTTP/1.1", _HOST), EVIL),
            ("CONNECT against the host", request(f"CONNECT {ALLOWED}:80 HTTP/1.1", f"Host: {EVIL}"), ALLOWED),
            ("All of a host (OPTIONS)", request("OPTIONS * HTTP/1.1", _HOST), ALLOWED),
            (
                "An upgrade to a tunnel for datagrams",
                request(_GET, _HOST, "Upgrade: connect-udp", "Capsule-Protocol: ?1").replace(b"close", b"Upgrade"),
                ALLOWED,
            ),
        )
    ),
    refused("A host with a rule for another port only", _OF_WEB, *NO_RULE, "web.test", port=8080),
    refused(
        "A host without a rule, an octet at a time", request(_GET, f"Host: {EVIL}"), *NO_RULE, EVIL, "--pieces"
    ),
    refused("A host that is continued", request(_GET, _HOST, f" {EVIL}"), *_UNREADABLE, None),
    refused("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", "426", Reason.BAD_REQUEST, None),
    refused("HTTP/0.9", b"GET /\r\n", "426", Reason.BAD_REQUEST, None),
    refused("A fragment in a path", request(f"GET /#@{EVIL}/ HTTP/1.1", _HOST), *BAD_REQUEST, ALLOWED),
    refused("The absolute form over TLS", request(f"GET https://{ALLOWED}/ HTTP/1.1", _HOST), *_NOT_HERE, None),
    *(
        refused(f"HTTP/2 {what}", http2(*fields), "HTTP/2", Reason.NO_RULE, EVIL)
        for what, fields in {
            "to another host": pseudo(EVIL),
            "with a host that is another": (*pseudo(EVIL), ("host", ALLOWED)),
            "with a host only, without a rule": (*pseudo(EVIL)[:3], ("host", EVIL)),
        }.items()
    ),
    refused("HTTP/2 that connects", http2(*_TUNNEL), "HTTP/2", Reason.BAD_REQUEST, EVIL),
    *(
        refused(f"HTTP/2 with {what}", http2(*fields), "closed", Reason.BAD_REQUEST, None)
        for what, fields in {
            "two authorities": (*pseudo(ALLOWED), (":authority", EVIL)),
            "userinfo": pseudo(f"{ALLOWED}@{EVIL}"),
            "a path that is a URL": pseudo(ALLOWED, f"http://{EVIL}/"),
            "a path that has no slash": pseudo(ALLOWED, f"@{EVIL}/"),
            "a scheme that is a URL": ((":scheme", f"http://{EVIL}/?"), *pseudo(ALLOWED)[::2], pseudo(ALLOWED)[3]),
            "a header in a path": pseudo(ALLOWED, f"/ HTTP/1.1\r\nHost: {EVIL}\r\nX:"),
            "a request in a method": pseudo(ALLOWED, method=f"GET / HTTP/1.1\r\nHost: {EVIL}\r\n\r\nGET"),
            "a URL in a method": pseudo(ALLOWED, method=f"GET http://{EVIL}/"),
            "a header in a header": (*pseudo(ALLOWED), ("x", f"1\r\nHost: {EVIL}")),
            "a header in upper case": (*pseudo(ALLOWED), ("HOST", EVIL)),
            "chunks": (*pseudo(ALLOWED), ("transfer-encoding", "chunked")),
            "a WebSocket to another host": ((":protocol", "websocket"), *pseudo(EVIL, method="CONNECT")),
            "a tunnel for datagrams": (
                (":protocol", "connect-udp"),
                *pseudo(ALLOWED, f"/.well-known/masque/udp/{EVIL}/443/", "CONNECT"),
            ),
        }.items()
    ),
)

SMUGGLED = request("GET /smuggled HTTP/1.1", f"Host: {EVIL}")


def _post(*headers: str) -> bytes:
    return head("POST / HTTP/1.1", _HOST, *headers)


def _behind(
    what: str, content: bytes, result: str, reason: Reason | None, name: str | None, *, connects: bool = False
) -> Attack:
    command, title = sent(content + SMUGGLED), f"{what}, then a request"
    arrives = ("/",) if "200" in result else ()
    return Attack(title, command, result, reason, name, FETCHES_HTTP, arrives, port=80, connects=connects)


_ARRIVES, _BOTH = ("200", None, None), ("200, 403", Reason.NO_RULE, EVIL)
_UNKNOWN = ("501", Reason.BAD_REQUEST)
_END_OF_CHUNKS = b"0\r\n\r\n"
_CHUNKED = ("Transfer-Encoding: chunked", f"Content-Length: {len(SMUGGLED) + len(_END_OF_CHUNKS)}")
_ALL_CHUNKED = ("Transfer-Encoding: chunked", f"Content-Length: {len(_END_OF_CHUNKS)}")
_OTHER_CHUNKS = ("Transfer-Encoding: xchunked", f"Content-Length: {len(_END_OF_CHUNKS)}")
BEHIND = (
    _behind("A body of no length", request("POST / HTTP/1.1", _HOST, "Content-Length: 0"), *_ARRIVES),
    _behind("Two lengths", _post("Content-Length: 0", f"Content-Length: {len(SMUGGLED)}"), *BAD_REQUEST, None),
    _behind("A length and chunks", _post(*_CHUNKED) + _END_OF_CHUNKS, *BAD_REQUEST, None),
    _behind("Chunks and a length", _post(*reversed(_CHUNKED)) + _END_OF_CHUNKS, *BAD_REQUEST, None),
    _behind("Chunks and a length of all", _post(*_ALL_CHUNKED) + _END_OF_CHUNKS, *BAD_REQUEST, None),
    _behind("Chunks twice", _post(_CHUNKED[0], _CHUNKED[0]) + _END_OF_CHUNKS, *_UNKNOWN, None),
    _behind("A length in the line below", _post("Content-Length:", " 0"), *_BOTH),
    _behind("A length with a sign", _post("Content-Length: +0"), *BAD_REQUEST, None),
    _behind("Chunks that are called otherwise", _post(*_OTHER_CHUNKS) + _END_OF_CHUNKS, *BAD_REQUEST, None),
    *(
        _behind(f"Chunks that are {what}", _post(f"Transfer-Encoding: {coding}") + _END_OF_CHUNKS, *_UNKNOWN, None)
        for what, coding in {
            "none": "identity",
            "not the last coding": "chunked, identity",
            "not the only coding": "identity, chunked",
            "in quotation marks": '"chunked"',
        }.items()
    ),
    *(
        _behind(what, _post(coding) + _END_OF_CHUNKS, *_BOTH)
        for what, coding in {
            "Chunks behind a tab": "Transfer-Encoding:\tchunked",
            "Chunks in upper case": "TRANSFER-ENCODING: CHUNKED",
        }.items()
    ),
    *(
        _behind(what, _post(_CHUNKED[0]) + chunks, "400", Reason.BAD_REQUEST, ALLOWED, connects=True)
        for what, chunks in {
            "Chunks that end with line feeds": b"1\nx\n0\n\n",
            "Chunks with a line feed in an extension": b"1;\nx\r\nx\r\n0\r\n\r\n",
            "Chunks whose length has a prefix": b"0x1\r\nx\r\n0\r\n\r\n",
            "Chunks whose length is too large for a number": b"10000000000000001\r\nx\r\n0\r\n\r\n",
            "Chunks whose length has a sign": b"-1\r\nx\r\n0\r\n\r\n",
        }.items()
    ),
    _behind("A list of lengths", _post("Content-Length: 0, 0"), *BAD_REQUEST, None),
    _behind("A length in another base", _post("Content-Length: 0x0"), *BAD_REQUEST, None),
    _behind("A length with another name", _post("Content_Length: 62"), *_BOTH),
    _behind(
        "A body that waits to be asked for",
        head("POST / HTTP/1.1", _HOST, "Expect: 100-continue", f"Content-Length: {len(SMUGGLED)}"),
        "100, 200",
        None,
        None,
    ),
    _behind("A whole request", head(_GET, _HOST), *_BOTH),
    _behind("An upgrade to HTTP/2", head(_GET, _HOST, "Connection: Upgrade", *UPGRADE), *_BOTH),
    _behind("An upgrade to WebSocket", head(_GET, _HOST, *WEBSOCKET), *_ARRIVES),
)
"""Requests to the allowed origin, with another one for another origin behind it."""
