"""Why something is refused to an agent: one vocabulary for the policy, the records and the documentation."""

from enum import StrEnum


class Reason(StrEnum):
    """A reason, as it is written in records."""

    @property
    def sentence(self) -> str:
        """The reason in words, as agents and people are told it."""
        return _SENTENCES[self]

    @property
    def failed(self) -> bool:
        """Whether a rule allows what was asked, and it failed elsewhere: this is no denial."""
        elsewhere = {Reason.NOT_TRUSTED, Reason.HOST_NOT_TRUSTED, Reason.NO_ADDRESS, Reason.UNREACHABLE}
        return self in elsewhere | {Reason.NO_SECRET, Reason.SECRET_REFUSED}

    NO_RULE = "no-rule"
    """No rule allows this host; in Envoy's records, on this port, over this protocol."""

    WRONG_PORT = "wrong-port"
    """A rule allows this host, but on another port or over another protocol."""

    DENIED = "denied"
    """A rule denies this host, or this port or protocol of it."""

    PATH = "path"
    """A rule allows this host, but not this path of it with this method."""

    NO_WEBSOCKET = "no-websocket"
    """A rule allows this request, but not that it becomes a WebSocket."""

    EXPIRED = "expired"
    """The rule that allowed this name has ended."""

    NO_SERVER_NAME = "no-server-name"
    """TLS without a server name (RFC 6066): no rule can be for it."""

    BAD_NAME = "bad-name"
    """The name is no host name (RFC 1035)."""

    BAD_REQUEST = "bad-request"
    """Neither TLS nor a request that can be forwarded: another protocol, CONNECT, an upgrade, no Host."""

    TIMEOUT = "timeout"
    """No TLS hello, or no complete request headers, arrived in time."""

    LIMIT = "limit"
    """Over the limit of one agent, or of all agents."""

    PRIVATE_ADDRESS = "private-address"
    """A rule allows the name, but not the addresses that it resolves to."""

    NOT_TRUSTED = "not-trusted"
    """TLS is looked into, and the agent's client has refused Envoy's certificate for the host."""

    HOST_NOT_TRUSTED = "host-not-trusted"
    """TLS is looked into, and Envoy does not trust the certificate of the host, or it is for another name."""

    NO_ADDRESS = "no-address"
    """A rule allows the name, but looking it up failed."""

    NO_SECRET = "no-secret"  # noqa: S105 - the name of a reason
    """A rule allows the request with a secret, which Envoy has not got."""

    SECRET_REFUSED = "secret-refused"  # noqa: S105 - the name of a reason
    """A request was forwarded with a secret, and the host did not accept it (401)."""

    UNREACHABLE = "unreachable"
    """A rule allows the name, but the server did not answer, or its answer failed."""


_SENTENCES = {
    Reason.NO_RULE: "no rule allows this host",
    Reason.WRONG_PORT: "rules allow this host only on another port or over another protocol",
    Reason.DENIED: "a rule denies this host",
    Reason.PATH: "a rule allows this host, but not this path with this method",
    Reason.NO_WEBSOCKET: "a rule allows this request, but not as a WebSocket",
    Reason.EXPIRED: "the rule for this host has ended",
    Reason.NO_SERVER_NAME: "there is no server name",
    Reason.BAD_NAME: "this is not a host name",
    Reason.BAD_REQUEST: "this is not TLS, nor a request that can be forwarded",
    Reason.TIMEOUT: "no TLS hello or complete request headers arrived in time",
    Reason.LIMIT: "this is over the limit of this agent, or of all agents",
    Reason.PRIVATE_ADDRESS: "a rule allows this host, but none of its addresses",
    Reason.NOT_TRUSTED: "a rule looks into TLS of this host, and the agent refused the certificate for that",
    Reason.HOST_NOT_TRUSTED: "a rule allows this host, but Envoy does not trust its certificate",
    Reason.NO_ADDRESS: "a rule allows this host, but it has no address",
    Reason.NO_SECRET: "a rule allows this request, but the secret for it is not there",
    Reason.SECRET_REFUSED: "the host did not accept the secret of this request",
    Reason.UNREACHABLE: "a rule allows this host, but the server did not answer",
}
"""The helper in the containers has a copy (go/internal/reason); a test compares them."""
