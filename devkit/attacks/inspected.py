"""Requests in inspected TLS: paths that no rule allows, in many spellings, and hosts that TLS has not named."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.attack import ALLOWED, DIRECT, Attack
from devkit.attacks.requests import request

INSPECTED, BELOW = "paths.test", "below.test"
"""A host of which `/v1` is allowed but for `/v1/private`, and a subtree of hosts of which all paths are."""

ANY_CERTIFICATE = {"insecure_skip_tls_verify": True}
"""The simulated internet signs its own."""

RULES = (
    {
        "dst": INSPECTED,
        "path_rules": [{"path": "/v1", "methods": ["GET", "POST"]}, {"path": "/v1/private", "action": "deny"}],
        **ANY_CERTIFICATE,
    },
    {"dst": f".{BELOW}", "inspect": True, **ANY_CERTIFICATE},
)

_UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
_FETCHES = ("get", f"https://{ALLOWED}/", *DIRECT)


def _sent(content: bytes, name: str = INSPECTED) -> tuple[str, ...]:
    return ("raw", "{envoy}:443", "--tls", name, "--hex", content.hex(), "--timeout", "400ms")


def _refused(what: str, content: bytes, result: str, reason: Reason, name: str = INSPECTED) -> Attack:
    return Attack(what, _sent(content), result, reason, name, _FETCHES)


def _asked(target: str, method: str = "GET", *headers: str, host: str = INSPECTED) -> bytes:
    return request(f"{method} {target} HTTP/1.1", f"Host: {host}", *headers)


REQUESTS_IN_TLS = (
    Attack(
        "An allowed path arrives",
        _sent(_asked("/v1/x")),
        "200",
        control=_FETCHES,
        arrives=("/v1/x",),
        host=INSPECTED,
    ),
    _refused("A path without a rule", _asked("/v2"), "403", Reason.PATH),
    _refused("A path that only begins like an allowed one", _asked("/v1-evil"), "403", Reason.PATH),
    _refused("A method without a rule", _asked("/v1/x", "DELETE"), "403", Reason.PATH),
    _refused("TRACE, which gives back what was put into a request", _asked("/v1/x", "TRACE"), "403", Reason.PATH),
    _refused("TRACE in lower case", _asked("/v1/x", "trace"), "403", Reason.PATH),
    _refused("TRACK, which some hosts take for TRACE", _asked("/v1/x", "TRACK"), "403", Reason.PATH),
    _refused("A denied path", _asked("/v1/private"), "403", Reason.PATH),
    _refused("A denied path by its parent", _asked("/v1/x/../private"), "403", Reason.PATH),
    _refused("A denied path with an escaped letter", _asked("/v1/%70rivate"), "403", Reason.PATH),
    _refused("A denied path with two slashes", _asked("//v1//private"), "403", Reason.PATH),
    _refused("A denied path behind an escaped slash", _asked("/v1%2fprivate"), "400", Reason.BAD_REQUEST),
    _refused(
        "A denied path behind an escaped parent", _asked("/v1/x/%252e%252e/private"), "400", Reason.BAD_REQUEST
    ),
    _refused(
        "A denied path behind a parent with a space", _asked("/v1/x/..%20/private"), "400", Reason.BAD_REQUEST
    ),
    _refused("A denied path with an escape of Windows", _asked("/v1/%u0070rivate"), "400", Reason.BAD_REQUEST),
    _refused("A denied path with a parameter", _asked("/v1/private;x=1"), "400", Reason.BAD_REQUEST),
    _refused("A denied path with backslashes", _asked("/v1/x\\..\\private"), "403", Reason.PATH),
    _refused("A WebSocket to an allowed path", _asked("/v1/x", "GET", *_UPGRADE), "403", Reason.NO_WEBSOCKET),
    _refused("A WebSocket to a path without a rule", _asked("/v2", "GET", *_UPGRADE), "403", Reason.PATH),
    _refused(
        "An allowed host in the request, and another one in TLS",
        _asked("/v1/x", host=ALLOWED),
        "421",
        Reason.BAD_REQUEST,
        ALLOWED,
    ),
    _refused(
        "An allowed host in the absolute form, and another one in TLS",
        request(f"GET https://{ALLOWED}/v1/x HTTP/1.1", f"Host: {INSPECTED}"),
        "421",
        Reason.BAD_REQUEST,
        ALLOWED,
    ),
    Attack(
        "A server name below an inspected one, without a rule",
        _sent(_asked("/v1/x"), f"x.{INSPECTED}"),
        "closed",
        Reason.NO_RULE,
        f"x.{INSPECTED}",
        _FETCHES,
    ),
    Attack(
        "The name of a secret, as a server name below an inspected one",
        _sent(_asked("/"), f"secret:x.{BELOW}"),
        "closed",
        Reason.BAD_NAME,
        f"invalid:secret_x.{BELOW}",
        _FETCHES,
    ),
)
