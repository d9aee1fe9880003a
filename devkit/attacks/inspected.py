"""Requests in inspected TLS: paths that no rule allows, in many spellings, and hosts that TLS has not named."""

from clawker_fw.rules.reasons import Reason
from devkit.attacks.attack import ALLOWED, FETCHES, Attack, raw
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


def _sent(content: bytes, name: str = INSPECTED) -> tuple[str, ...]:
    return raw("{envoy}:443", content, "--tls", name, "--timeout", "400ms")


def _refused(what: str, content: bytes, result: str, reason: Reason, name: str = INSPECTED) -> Attack:
    return Attack(what, _sent(content), result, reason, name, FETCHES)


def _asked(target: str, method: str = "GET", *headers: str, host: str = INSPECTED) -> bytes:
    return request(f"{method} {target} HTTP/1.1", f"Host: {host}", *headers)


_BELOW = "below an inspected one"
_SECRET = (f"secret:x.{BELOW}", Reason.BAD_NAME, f"invalid:secret_x.{BELOW}")
_X = _asked("/v1/x")

REQUESTS_IN_TLS = (
    Attack("An allowed path arrives", _sent(_X), "200", control=FETCHES, arrives=("/v1/x",), host=INSPECTED),
    *(
        _refused(what, _asked(target, method), "403", Reason.PATH)
        for what, target, method in (
            ("A path without a rule", "/v2", "GET"),
            ("A path that only begins like an allowed one", "/v1-evil", "GET"),
            ("A method without a rule", "/v1/x", "DELETE"),
            ("TRACE, which gives back what was put into a request", "/v1/x", "TRACE"),
            ("TRACE in lower case", "/v1/x", "trace"),
            ("TRACK, which some hosts take for TRACE", "/v1/x", "TRACK"),
            ("A denied path", "/v1/private", "GET"),
            ("A denied path by its parent", "/v1/x/../private", "GET"),
            ("A denied path with an escaped letter", "/v1/%70rivate", "GET"),
            ("A denied path with two slashes", "//v1//private", "GET"),
            ("A denied path behind an escaped slash", "/v1%2fprivate", "GET"),
            ("A denied path with a parameter", "/v1/private;x=1", "GET"),
        )
    ),
    *(
        _refused(f"A denied path {what}", _asked(target), "400", Reason.BAD_REQUEST)
        for what, target in {
            "behind an escaped parent": "/v1/x/%252e%252e/private",
            "behind a parent with a space": "/v1/x/..%20/private",
            "with an escape of Windows": "/v1/%u0070rivate",
        }.items()
    ),
    _refused("A denied path with backslashes", _asked("/v1/x\\..\\private"), "403", Reason.PATH),
    _refused("A WebSocket to an allowed path", _asked("/v1/x", "GET", *_UPGRADE), "403", Reason.NO_WEBSOCKET),
    _refused("A WebSocket to a path without a rule", _asked("/v2", "GET", *_UPGRADE), "403", Reason.PATH),
    *(
        _refused(
            f"An allowed host in the {where}, and another one in TLS", content, "421", Reason.BAD_REQUEST, ALLOWED
        )
        for where, content in {
            "request": _asked("/v1/x", host=ALLOWED),
            "absolute form": request(f"GET https://{ALLOWED}/v1/x HTTP/1.1", f"Host: {INSPECTED}"),
        }.items()
    ),
    *(
        Attack(what, _sent(content, name), "closed", reason, recorded, FETCHES)
        for what, content, name, reason, recorded in (
            (f"A server name {_BELOW}, without a rule", _X, f"x.{INSPECTED}", Reason.NO_RULE, f"x.{INSPECTED}"),
            (f"The name of a secret, as a server name {_BELOW}", _asked("/"), *_SECRET),
        )
    ),
)
