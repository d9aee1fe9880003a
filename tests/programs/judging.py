"""Envoy's treatment of requests in inspected TLS, compared with the policy's."""

import http.client
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from clawker_fw.rules import paths
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from devkit.inspecting import Host, Inspecting
from devkit.requests import AskedRequest, rules_of

REFUSED, UNREAD, ENDED = "TLS is refused", "TLS is forwarded", "the connection or the request is ended"
"""What can happen to a request besides an answer."""

_OCTETS = {each: f"%{each:02X}" for each in range(0x80, 0x100)}

_LATE = 20
"""How often a differing request is repeated: an update reaches Envoy's workers after its main thread."""


def expected(policy: Policy, asked: AskedRequest) -> set[str]:
    """Return the possible outcomes of a request by the policy, as text."""
    connection = policy.decide(asked.name, Protocol.HTTPS, asked.port)
    if not connection.allowed:
        return {REFUSED}
    if connection.rule is None or connection.rule.paths is None:
        return {UNREAD}
    sent = asked.target if asked.over == "h2" else asked.target.rstrip("\t")  # which ends it, as a space does
    # Over HTTP/2, Envoy reads bytes beyond ASCII as their escapes; over HTTP/1.1, it refuses them.
    target = sent.translate(_OCTETS) if asked.over == "h2" else sent
    words = (asked.name, Protocol.HTTPS, asked.port, asked.method, target)
    decided = policy.decide(*words, websocket=asked.websocket)
    if decided.reason is None:
        path = str(paths.seen(target)).partition("?")[0]
        return {_reached(asked.method, path + "".join(sent.partition("?")[1:]), asked.port)}
    return {"403"} if decided.reason in {Reason.PATH, Reason.NO_WEBSOCKET} else {"400", ENDED}


def _reached(method: str, target: str, port: int) -> str:
    return f"{method} {target} reaches the host on port {port}"


def outcome(proxy: Inspecting, host: Host, asked: AskedRequest) -> str:
    """Return the outcome of a request on a new connection: how it reached the host, or the answer."""
    host.reached.clear()
    status = _status(proxy, host, asked)
    reached = [_reached(each.method, each.target, each.port) for each in host.reached]
    if status == ("101" if asked.websocket else "200") and len(reached) == 1:
        return reached[0]
    return " and ".join([status, *reached])


def _status(proxy: Inspecting, host: Host, asked: AskedRequest) -> str:
    with ExitStack() as stack:
        try:
            tls = stack.enter_context(proxy.connected(asked.name, asked.port, asked.over))
        except OSError:
            return REFUSED
        if tls.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(host.certificate.read_text()):
            return UNREAD
        try:
            return (_ask_http2 if asked.over == "h2" else _ask_http1)(tls, asked)
        except (ConnectionError, ssl.SSLError, h2.exceptions.ProtocolError):
            return ENDED


def _ask_http1(tls: ssl.SSLSocket, asked: AskedRequest) -> str:
    to_become = "Connection: Upgrade\r\nUpgrade: websocket\r\n" if asked.websocket else "Content-Length: 0\r\n"
    head = f"{asked.method} {asked.target} HTTP/1.1\r\nHost: {asked.name}\r\n{to_become}\r\n"
    tls.sendall(head.encode("latin-1"))
    answer = http.client.HTTPResponse(tls, method=asked.method)
    answer.begin()
    answer.read()
    return str(answer.status)


def _ask_http2(tls: ssl.SSLSocket, asked: AskedRequest) -> str:
    """Send a request, which may be invalid."""
    own = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    http2 = h2.connection.H2Connection(own)
    http2.initiate_connection()
    pseudo = {":method": asked.method, ":scheme": "https", ":authority": asked.name, ":path": asked.target}
    http2.send_headers(1, [(name, value.encode("latin-1")) for name, value in pseudo.items()], end_stream=True)
    tls.sendall(http2.data_to_send())
    status = ""
    while some := tls.recv(65536):
        for event in http2.receive_data(some):
            match event:
                case h2.events.ResponseReceived():
                    status = dict(event.headers)[b":status"].decode()
                case h2.events.ConnectionTerminated() | h2.events.StreamReset() | h2.events.StreamEnded():
                    return status or ENDED
        tls.sendall(http2.data_to_send())
    return status or ENDED


def served(proxy: Inspecting, entries: Sequence[Mapping[str, Any]]) -> Policy:
    """Apply rules to Envoy, and return their policy."""
    policy = Policy(rules_of(entries))
    proxy.obey(policy.rules)
    return policy


def differing(
    proxy: Inspecting, host: Host, policy: Policy, requests: Sequence[AskedRequest]
) -> Sequence[AskedRequest]:
    """Return the requests that Envoy treats differently than the applied policy."""
    wrong = list(requests)
    for attempt in range(_LATE + 1):
        if wrong:
            time.sleep(0.05 * bool(attempt))
            wrong = [each for each in wrong if outcome(proxy, host, each) not in expected(policy, each)]
    return wrong
