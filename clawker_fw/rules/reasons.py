"""Why a request is refused: one vocabulary for all. go/internal/reason has a copy; a test compares them."""

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """A reason as written in records, with the `sentence` shown to agents and users."""

    sentence: str

    def __new__(cls, word: str, sentence: str = "") -> Self:
        """Store the sentence with the code."""
        reason = str.__new__(cls, word)
        reason._value_ = word
        reason.sentence = sentence
        return reason

    # In Envoy's records: on this port, over this protocol.
    NO_RULE = "no-rule", "no rule allows this host"
    WRONG_PORT = "wrong-port", "rules allow this host only on another port or over another protocol"
    # Allowed all the same: observing holds.
    OBSERVED = "observed", "no rule allows this host, and it passes because this stack is observing"
    # The host, or this port or protocol of it.
    DENIED = "denied", "a rule denies this host"
    PATH = "path", "a rule allows this host, but not this path with this method"
    NO_WEBSOCKET = "no-websocket", "a rule allows this request, but not as a WebSocket"
    EXPIRED = "expired", "the rule for this host has ended"
    # TLS without a server name (RFC 6066): no rule can match.
    NO_SERVER_NAME = "no-server-name", "there is no server name"
    # RFC 1035.
    BAD_NAME = "bad-name", "this is not a host name"
    # Another protocol, CONNECT, an upgrade, no Host.
    BAD_REQUEST = "bad-request", "this is not TLS, nor a request that can be forwarded"
    TIMEOUT = "timeout", "no TLS hello or complete request headers arrived in time"
    LIMIT = "limit", "this is over the limit of this agent, or of all agents"
    PRIVATE_ADDRESS = "private-address", "this host may be reached, but none of its addresses"
    NOT_TRUSTED = (
        "not-trusted",
        "a rule inspects TLS of this host, and the agent refused Envoy's certificate",
    )
    # TLS is inspected, and the host's certificate is untrusted or names another host.
    HOST_NOT_TRUSTED = "host-not-trusted", "a rule allows this host, but Envoy does not trust its certificate"
    NO_ADDRESS = "no-address", "this host may be reached, but it has no address"
    NO_SECRET = "no-secret", "a rule allows this request, but the secret for it is not there"
    # The request was forwarded, and answered with 401.
    SECRET_REFUSED = "secret-refused", "the host did not accept the secret of this request"
    UNREACHABLE = "unreachable", "this host may be reached, but the server did not answer"
    # Of rules whose hosts are reached through the upstream proxy.
    PROXY_REFUSED = "proxy-refused", "a rule allows this host, but the upstream proxy refuses it"
    PROXY_AUTH = "proxy-auth", "a rule allows this host, but the upstream proxy wants other credentials"
    PROXY_FAILED = "proxy-failed", "a rule allows this host, but the upstream proxy did not get there"
    PROXY_UNREACHABLE = "proxy-unreachable", "a rule allows this host, but the upstream proxy does not answer"
    PROXY_NO_ADDRESS = "proxy-no-address", "a rule allows this host, but the upstream proxy has no address"

    @property
    def passes(self) -> bool:
        """Whether the request passes although no rule allows it."""
        return self is Reason.OBSERVED

    @property
    def failed(self) -> bool:
        """Whether a rule allows the request and it failed elsewhere, which is not a denial."""
        elsewhere = {Reason.NOT_TRUSTED, Reason.HOST_NOT_TRUSTED, Reason.NO_ADDRESS, Reason.UNREACHABLE}
        return self.of_proxy or self in elsewhere | {Reason.NO_SECRET, Reason.SECRET_REFUSED}

    @property
    def of_proxy(self) -> bool:
        """Whether the upstream proxy is the cause."""
        return self.value.startswith("proxy-")
