"""What Envoy writes down of each connection that it has made to a host: one line, which `fwctl record` counts.

It is written when the connection ends, with all its octets. Those to an address that stands for one name, and
sessions of UDP, are told of about once a minute while they are open as well. For all others, a log in each filter
chain would add a quarter to the time that a change of 10,000 rules takes Envoy (measured). So `fwctl` says how
many are open.

A line is no JSON, which tells it apart from those of refusals. No line can be forged: a name is only connected to
once it was found to be a host name (`messages.HOST_NAME`).
"""

from clawker_fw.stack.envoy.messages import ASKED, PORT, SOURCE, Json, duration, share, stdout

_OPEN_SECONDS = 60

_LOOKED_AT_ONCE_IN = 120
"""Envoy looks at a session of UDP twice a second. About one look in so many is told of."""

_CONNECTION, _PERIODIC = "%DOWNSTREAM_REMOTE_ADDRESS%", "%ACCESS_LOG_TYPE%"


def _line(
    protocol: str,
    name: str,
    port: str,
    source: str = _CONNECTION,
    *,
    moment: str = "Ended",
    chain: str = "%FILTER_CHAIN_NAME%",
) -> str:
    """Return the format of a line. The `chain` tells the rule: names below a subtree count as the subtree."""
    words = (protocol, name, port, source, "%BYTES_RECEIVED%", "%BYTES_SENT%")
    return " ".join(("used", *words, moment, "%UPSTREAM_LOCAL_ADDRESS%", chain)) + "\n"


def of_listener(forwarded: Json) -> Json:
    """Return the log of a listener for TLS that is not looked into. `forwarded` passes what led somewhere."""
    return _written(_line("https", "%REQUESTED_SERVER_NAME%", _state(PORT)), forwarded)


def of_requests(protocol: str, forwarded: Json) -> Json:
    """Return the log of an internal listener that requests of a protocol go through."""
    return _written(_line(protocol, _state(ASKED), _state(PORT), _state(SOURCE)), forwarded)


def _state(key: str) -> str:
    return f"%FILTER_STATE({key}:PLAIN)%"


def of_opaque(name: str) -> Json:
    """Return the fields with which a TCP proxy for one name tells of its connections, also while they are open."""
    line = _line("tcp", name, "%DOWNSTREAM_LOCAL_PORT%", moment=_PERIODIC)
    return {
        "access_log": [_written(line)],
        "access_log_options": {"access_log_flush_interval": duration(_OPEN_SECONDS)},
    }


def of_datagrams(name: str) -> Json:
    """Return the log of a listener for UDP that stands for one name."""
    now_and_then = share("usage.open", 1_000_000 // _LOOKED_AT_ONCE_IN)
    still_open = {"and_filter": {"filters": [{"log_type_filter": {"types": ["UdpPeriodic"]}}, now_and_then]}}
    ended = {"log_type_filter": {"types": ["UdpSessionEnd"]}}
    line = _line("udp", name, "%DOWNSTREAM_LOCAL_PORT%", moment=_PERIODIC, chain="udp")
    return _written(line, {"or_filter": {"filters": [ended, still_open]}})


def _written(line: str, passed: Json | None = None) -> Json:
    log = stdout(text_format_source={"inline_string": line})
    return {**log, "filter": passed} if passed else log
