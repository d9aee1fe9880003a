"""Why something is refused to an agent: one vocabulary for the policy, the records and the documentation."""

from enum import StrEnum


class Reason(StrEnum):
    """A reason, as it is written in records."""

    NO_RULE = "no-rule"
    """No rule allows this name; in Envoy's records, on this port, over this protocol."""

    WRONG_PORT = "wrong-port"
    """A rule allows this name, but on another port or over another protocol."""

    DENIED = "denied"
    """A rule denies this name, or this port or protocol of it."""

    EXPIRED = "expired"
    """The rule that allowed this name has ended."""

    NO_SERVER_NAME = "no-server-name"
    """TLS without a server name (RFC 6066): no rule can be for it."""

    BAD_NAME = "bad-name"
    """What was named is no host name (RFC 1035)."""

    BAD_REQUEST = "bad-request"
    """Neither TLS nor a request that can be forwarded: another protocol, CONNECT, an upgrade, no Host."""

    TIMEOUT = "timeout"
    """It was not said in time what is wanted."""

    LIMIT = "limit"
    """More than one agent, or all of them, may have at once."""

    PRIVATE_ADDRESS = "private-address"
    """A rule allows the name, and it leads to an address that the rule does not allow."""

    NO_ADDRESS = "no-address"
    """A rule allows the name, and it could not be looked up."""

    UNREACHABLE = "unreachable"
    """A rule allows the name, and its host does not answer, or failed to."""
