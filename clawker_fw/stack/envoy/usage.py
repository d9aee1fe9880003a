"""Envoy's log line per connection to a host, which `fwctl record` counts.

It is written when the connection ends, with the total bytes. Connections to a virtual address, and UDP sessions,
are also logged about once a minute while open. For others, that would add a quarter to the time of a change of
10,000 rules (measured), so `fwctl` reports how many are open.

A line is not JSON, unlike refusals. It can't be forged: Envoy connects only to host names (`messages.HOST_NAME`).
"""

from clawker_fw.stack.envoy.messages import ASKED, PORT, SOURCE, Json, duration, share, stdout

_PERIODIC = "%ACCESS_LOG_TYPE%"


def _line(
    protocol: str,
    name: str,
    port: str,
    source: str = "%DOWNSTREAM_REMOTE_ADDRESS%",
    *,
    moment: str = "Ended",
    chain: str = "%FILTER_CHAIN_NAME%",
) -> str:
    """Return a line's format. The `chain` tells the rule: names below a subtree count as the subtree."""
    words = (protocol, name, port, source, "%BYTES_RECEIVED%", "%BYTES_SENT%")
    return " ".join(("used", *words, moment, "%UPSTREAM_LOCAL_ADDRESS%", chain)) + "\n"


def of_listener(forwarded: Json) -> Json:
    """Return the log of a listener for TLS without inspection. `forwarded` passes only forwarded connections."""
    return _written(_line("https", "%REQUESTED_SERVER_NAME%", _state(PORT)), forwarded)


def of_requests(protocol: str, forwarded: Json) -> Json:
    """Return the log of the internal listener for a protocol's requests."""
    return _written(_line(protocol, _state(ASKED), _state(PORT), _state(SOURCE)), forwarded)


def _state(key: str) -> str:
    return f"%FILTER_STATE({key}:PLAIN)%"


def of_opaque(name: str) -> Json:
    """Return the fields with which a TCP proxy for one name logs its connections, also while they are open."""
    line = _line("tcp", name, "%DOWNSTREAM_LOCAL_PORT%", moment=_PERIODIC)
    return {
        "access_log": [_written(line)],
        "access_log_options": {"access_log_flush_interval": duration(60)},
    }


def of_datagrams(name: str) -> Json:
    """Return the log of a UDP listener for one name."""
    # Envoy checks a session twice a second: this logs about one check in 120.
    now_and_then = share("usage.open", 1_000_000 // 120)
    still_open = {"and_filter": {"filters": [{"log_type_filter": {"types": ["UdpPeriodic"]}}, now_and_then]}}
    ended = {"log_type_filter": {"types": ["UdpSessionEnd"]}}
    line = _line("udp", name, "%DOWNSTREAM_LOCAL_PORT%", moment=_PERIODIC, chain="udp")
    return _written(line, {"or_filter": {"filters": [ended, still_open]}})


def _written(line: str, passed: Json | None = None) -> Json:
    log = stdout(text_format_source={"inline_string": line})
    return {**log, "filter": passed} if passed else log
