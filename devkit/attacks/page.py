"""The page on which an agent reads what was refused to it: others' pages, other requests, what is behind it."""

from clawker_fw.rules.own_page import PAGE
from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.container import PAGE_PORT
from devkit.attacks.attack import ALLOWED, DIRECT, EVIL, FETCHES_HTTP, Attack, closed_port, raw
from devkit.attacks.requests import BAD_NAME, BAD_REQUEST, NO_RULE, head, http2, pseudo, refused, request, sent

_GET, _HOST = "GET / HTTP/1.1", f"Host: {PAGE}"
_UPWARDS = "/%2e%2e/%2e%2e/fw/boot/sibling.json"
_VICTIM = "10.213.0.2"


def _answers(what: str, content: bytes, result: str = "200") -> Attack:
    """Return a request that the page answers: nothing arrives anywhere else, and nothing is on record."""
    return Attack(what, sent(content), result, control=FETCHES_HTTP)


_SMUGGLED = f"GET / HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode()

READING = (
    Attack("The page", ("get", f"http://{PAGE}/"), "200", control=FETCHES_HTTP),
    _answers("Somebody else's address as the agent's", request(_GET, _HOST, f"X-Clawker-Fw-Agent: {_VICTIM}")),
    _answers(
        "Somebody else's address twice, in odd case",
        request(_GET, _HOST, f"x-clawker-fw-AGENT: {_VICTIM}", f"X-CLAWKER-FW-AGENT: {_VICTIM}"),
    ),
    _answers(
        "Somebody else's address as where it was forwarded for",
        request(_GET, _HOST, f"X-Forwarded-For: {_VICTIM}", f"Forwarded: for={_VICTIM}", f"X-Real-IP: {_VICTIM}"),
    ),
    _answers("A header that is to be removed on the way", request(_GET, _HOST, "Connection: X-Clawker-Fw-Agent")),
    _answers("The name of the page with another port", request(_GET, f"{_HOST}:8080")),
    _answers("The page in the absolute form", request(f"GET http://{PAGE}/ HTTP/1.1", f"Host: {EVIL}")),
    _answers("The page over HTTP/2", http2(*pseudo(PAGE), ("x-clawker-fw-agent", _VICTIM)), "HTTP/2"),
    _answers(
        "POST to the page", head("POST / HTTP/1.1", _HOST, "Content-Length: 2", "Connection: close") + b"{}", "405"
    ),
    _answers("PUT to the page", request("PUT / HTTP/1.1", _HOST, "Content-Length: 0"), "405"),
    _answers("TRACE of the page", request("TRACE / HTTP/1.1", _HOST), "405"),
    _answers("Another path than the page", request("GET /agents HTTP/1.1", _HOST), "404"),
    _answers("A path with steps upwards", request("GET /../../proc/self/environ HTTP/1.1", _HOST), "404"),
    _answers("A path with encoded steps upwards", request(f"GET {_UPWARDS} HTTP/1.1", _HOST), "404"),
    _answers("Somebody else's address in the query", request(f"GET /?agent={_VICTIM} HTTP/1.1", _HOST), "404"),
    _answers("A query of 30,000 octets", request(f"GET /?{'a' * 30_000} HTTP/1.1", _HOST), "404"),
    _answers(
        "A WebSocket to the page", request(_GET, _HOST, "Upgrade: websocket", "Sec-WebSocket-Key: eA=="), "200"
    ),
    _answers(
        "A request in the body of one for the page",
        head(_GET, _HOST, f"Content-Length: {len(_SMUGGLED)}", "Connection: close") + _SMUGGLED,
    ),
    refused(
        "A body for the page with two lengths",
        head("POST / HTTP/1.1", _HOST, "Content-Length: 5", "Transfer-Encoding: chunked", "Connection: close")
        + b"0\r\n\r\n"
        + _SMUGGLED,
        *BAD_REQUEST,
        None,
    ),
    refused("Two hosts, the page first", request(_GET, _HOST, f"Host: {ALLOWED}"), *BAD_NAME, f"{PAGE},{ALLOWED}"),
    refused("CONNECT to the page", request(f"CONNECT {PAGE}:80 HTTP/1.1", _HOST), "404", Reason.BAD_REQUEST, PAGE),
    refused("The page at another port", request(_GET, _HOST), *NO_RULE, PAGE, port=8080),
    refused("A subdomain of the page's name", request(_GET, f"Host: x.{PAGE}"), *NO_RULE, f"x.{PAGE}"),
    *(
        Attack(what, command, result, Reason.NO_RULE, name, FETCHES_HTTP)
        for what, command, result, name in (
            ("The name of the page in TLS", ("get", f"https://{PAGE}/", *DIRECT), "closed", PAGE),
            ("A subdomain of the page's name, looked up", ("resolve", f"x.{PAGE}"), "NXDOMAIN", f"x.{PAGE}"),
        )
    ),
    *(
        closed_port(
            f"The port at which the resolver's helper answers Envoy's, at {where}",
            raw(f"{{{place}}}:{PAGE_PORT}", f"{_VICTIM} 02:42:0a:d5:00:02\n".encode()),
            FETCHES_HTTP,
        )
        for where, place in (("the resolver", "resolver"), ("Envoy", "envoy"))
    ),
)
