"""What Envoy makes of requests in TLS that it looks into, beside what the policy says of them."""

import http.client
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
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
"""What can become of a request besides an answer."""

_OCTETS = {each: f"%{each:02X}" for each in range(0x80, 0x100)}

_LATE = 20
"""How often what differs is asked for again: an update reaches Envoy's workers after its main thread."""


def expected(policy: Policy, asked: AskedRequest) -> set[str]:
    """Return what may become of a request, according to the policy, each in words."""
    connection = policy.decide(asked.name, Protocol.HTTPS, asked.port)
    if not connection.allowed:
        return {REFUSED}
    if connection.rule is None or connection.rule.paths is None:
        return {UNREAD}
    sent = asked.target if asked.over == "h2" else asked.target.rstrip("\t")  # which ends it, as a space does
    # Over HTTP/2 Envoy takes octets beyond ASCII for their escapes. Over HTTP/1.1 it refuses them.
    target = sent.translate(_OCTETS) if asked.over == "h2" else sent
    words = (asked.name, Protocol.HTTPS, asked.port, asked.method, target)
    decided = policy.decide(*words, websocket=asked.websocket)
    if decided.reason is None:
        path = str(paths.seen(target)).partition("?")[0]
        return {_reached(asked.method, path + "".join(sent.partition("?")[1:]), asked.port)}
    return {"403"} if decided.reason in {Reason.PATH, Reason.NO_WEBSOCKET} else {"400", ENDED}


def _reached(method: str, target: str, port: int) -> str:
    return f"{method} {target} reaches the host on port {port}"


class Agent:
    """Makes requests one after the other, each on a connection that an earlier one has used, if there is one.

    What it returns says the host, if anything has reached it, and else the answer.
    """

    def __init__(self, proxy: Inspecting, host: Host) -> None:
        self._proxy, self._host = proxy, host
        self._foreign = ssl.PEM_cert_to_DER_cert(host.certificate.read_text())
        self._open: dict[tuple[str, int, str], _Http1 | _Http2] = {}
        self._connections = ExitStack()

    def close(self) -> None:
        self._connections.close()
        self._open.clear()

    def outcome(self, asked: AskedRequest) -> str:
        self._host.reached.clear()
        status = self._status(asked)
        reached = [_reached(each.method, each.target, each.port) for each in self._host.reached]
        if status == ("101" if asked.websocket else "200") and len(reached) == 1:
            return reached[0]
        return " and ".join([status, *reached])

    def _status(self, asked: AskedRequest) -> str:
        place = (asked.name, asked.port, asked.over)
        known = self._open.pop(place, None)
        if known is None:
            try:
                tls = self._connections.enter_context(self._proxy.connected(asked.name, asked.port, asked.over))
            except (ssl.SSLError, OSError):
                return REFUSED
            if tls.getpeercert(binary_form=True) == self._foreign:
                tls.close()
                return UNREAD
            known = _Http2(tls) if asked.over == "h2" else _Http1(tls)
        status = known.ask(asked)
        if known.usable:
            self._open[place] = known
        return status


class _Http1:
    """A connection over HTTP/1.1."""

    usable = True

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls

    def ask(self, asked: AskedRequest) -> str:
        to_become = "Connection: Upgrade\r\nUpgrade: websocket\r\n" if asked.websocket else "Content-Length: 0\r\n"
        head = f"{asked.method} {asked.target} HTTP/1.1\r\nHost: {asked.name}\r\n{to_become}\r\n"
        answer = http.client.HTTPResponse(self._tls, method=asked.method)
        try:
            self._tls.sendall(head.encode("latin-1"))
            answer.begin()
            answer.read()
        except (ConnectionError, ssl.SSLError):
            self.usable = False
            return ENDED
        self.usable = not answer.will_close and not asked.websocket
        return str(answer.status)


class _Http2:
    """A connection over HTTP/2, on which also what is no correct request is sent."""

    usable = True

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        own = h2.config.H2Configuration(
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._http = h2.connection.H2Connection(own)
        self._http.initiate_connection()

    def ask(self, asked: AskedRequest) -> str:
        stream = self._http.get_next_available_stream_id()
        pseudo = {":method": asked.method, ":scheme": "https", ":authority": asked.name, ":path": asked.target}
        self._http.send_headers(
            stream, [(name, value.encode("latin-1")) for name, value in pseudo.items()], end_stream=True
        )
        try:
            return self._answer(stream)
        except (ConnectionError, ssl.SSLError, h2.exceptions.ProtocolError):
            self.usable = False
            return ENDED

    def _answer(self, stream: int) -> str:
        status = ""
        self._tls.sendall(self._http.data_to_send())
        while some := self._tls.recv(65536):
            for event in self._http.receive_data(some):
                if isinstance(event, h2.events.ConnectionTerminated):  # Envoy ends the connection later
                    self.usable = False
                    return status or ENDED
                if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                    status = dict(event.headers)[b":status"].decode()
                if isinstance(event, h2.events.StreamReset) and event.stream_id == stream:
                    return status or ENDED
                if isinstance(event, h2.events.StreamEnded) and event.stream_id == stream:
                    self._tls.sendall(self._http.data_to_send())
                    return status
            self._tls.sendall(self._http.data_to_send())
        self.usable = False
        return status or ENDED


class Judge:
    """Has Envoy obey rules, and compares what it makes of requests."""

    def __init__(self, proxy: Inspecting, host: Host) -> None:
        self._proxy, self._host = proxy, host

    def differing(
        self, entries: Sequence[Mapping[str, Any]], requests: Sequence[AskedRequest]
    ) -> Sequence[AskedRequest]:
        """Return the requests of which Envoy makes something else than the policy."""
        policy = self._served(entries)
        with closing(Agent(self._proxy, self._host)) as asking:
            wrong = [each for each in requests if asking.outcome(each) not in expected(policy, each)]
        for _ in range(_LATE):
            if wrong:
                time.sleep(0.05)
                with closing(Agent(self._proxy, self._host)) as asking:
                    wrong = [each for each in wrong if asking.outcome(each) not in expected(policy, each)]
        return wrong

    def report(self, entries: Sequence[Mapping[str, Any]], asked: AskedRequest) -> str:
        """Return how a request differs, and with which rules."""
        policy = self._served(entries)
        with closing(Agent(self._proxy, self._host)) as asking:
            found = asking.outcome(asked)
        return f"{asked}: {found!r} instead of {sorted(expected(policy, asked))}, with the rules {entries}"

    def _served(self, entries: Sequence[Mapping[str, Any]]) -> Policy:
        policy = Policy(rules_of(entries))
        self._proxy.obey(policy.rules)
        return policy
