"""A refusal as logged by Envoy, CoreDNS or their helper: one line of JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from clawker_fw.engine.outputs import STAMP
from clawker_fw.model.json_types import Moment
from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.reasons import Reason

OF_REQUESTS = {Reason.PATH, Reason.NO_WEBSOCKET}
"""Reasons to refuse a request to a host on which other requests are allowed: each path counts separately."""

_PROXY_HEADERS = {"x-squid-error", "proxy-authenticate"}
_LONGEST_ANSWER = 200

Record = tuple[str, Mapping[str, Any]]
"""The engine's time of a line (RFC 3339), and its JSON."""


class Refusal(NamedTuple):
    """A refusal: who refused which agent's address what, and why.

    `protocol` is the record's: `dns`, `tls`, `http`, `tcp` or `udp`. `name` is empty if the agent named no host;
    then `tried` may be the address it connected to. `reason` is a `Reason`, or unknown from another release.
    `method` and `path` belong to an HTTP request; `path` is empty unless it decided.
    """

    sibling: Sibling
    agent: str
    protocol: str
    name: str
    port: int
    reason: str
    tried: str = ""
    method: str = ""
    path: str = ""


@dataclass(slots=True)
class Counted:
    """How often something was refused, when last (RFC 3339), and details.

    `request` is the last method and path, `types` are the queried record types, and `upstream` is the address to
    which Envoy would have connected. `proxy` is what the upstream proxy said.
    """

    refusal: Refusal
    times: int = 1
    last: str = ""
    request: str = ""
    upstream: str = ""
    types: set[str] = field(default_factory=set)
    proxy: str = ""

    def add(self, other: "Counted") -> None:
        """Add the same refusal from another time."""
        self.times += other.times
        self.types |= other.types
        if other.last >= self.last:
            self.last, self.request, self.upstream = other.last, other.request, other.upstream
            self.proxy = other.proxy


@dataclass(frozen=True, slots=True)
class Gap:
    """Where lines of a sibling's log are missing."""

    sibling: Sibling
    since: Moment
    """When the last line before it was written, by the engine's clock."""
    until: Moment | None
    """When the first line after it was written; null if there is none."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """All refusals, the latest last.

    `more` counts refusals beyond the limit on different ones. `suppressed` counts those that were never logged, by
    the agent's address or `UNKNOWN_AGENT`. `gaps` are missing lines.
    """

    counted: tuple[Counted, ...]
    more: int = 0
    suppressed: Mapping[str, int] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()


def is_record(line: bytes) -> bool:
    """Whether a log line looks like a record."""
    return line[STAMP + 1 : STAMP + 2] == b"{"


def records_in(lines: Iterable[bytes]) -> Iterator[Record]:
    """Yield the records in log lines."""
    for line in lines:
        if is_record(line):
            try:
                record = json.loads(line[STAMP + 1 :])
            except (ValueError, RecursionError):
                continue
            yield line[:STAMP].decode(), record


def refusals_in(sibling: Sibling, records: Iterable[Record]) -> Iterator[Counted]:
    """Yield the refusals among records. One with `times` stands for equal refusals that were only counted."""
    for moment, record in records:
        if "reason" not in record:
            continue
        name, method, path, reason = (_text(record, key) for key in ("name", "method", "path", "reason"))
        refusal = Refusal(
            sibling,
            agent_in(record),
            _text(record, "protocol"),
            name.lower(),
            number_in(record, "port"),
            reason,
            "" if name else _text(record, "address"),
            method,
            path if reason in OF_REQUESTS else "",
        )
        upstream = _text(record, "upstream").partition(":")[0]
        types = {kind} if (kind := _text(record, "type")) else set()
        times = number_in(record, "times") or 1
        last, request = _last(record, moment), f"{method} {path}".strip()
        yield Counted(refusal, times, last, request, upstream, types, _proxy_answer(record))


def _proxy_answer(record: Mapping[str, Any]) -> str:
    """Return Squid's error, and the demanded credentials, from the headers of the upstream proxy's answer."""
    headers = record.get("proxy")
    recorded = headers.get("headers") if isinstance(headers, Mapping) else None
    pairs = [
        (_text(header, "key"), _text(header, "value")) for header in recorded or () if isinstance(header, Mapping)
    ]
    return "; ".join(value[:_LONGEST_ANSWER] for key, value in pairs if key in _PROXY_HEADERS)


def _last(record: Mapping[str, Any], moment: str) -> str:
    """Return when the last refusal of a record happened. Counted ones may be logged much later."""
    last = _text(record, "last")
    with suppress(ValueError, OverflowError):
        datetime.fromisoformat(last).astimezone()
        return last
    return moment


def agent_in(record: Mapping[str, Any]) -> str:
    """Return the agent's address in a record, without its port."""
    return _text(record, "source").partition(":")[0]


def number_in(record: Mapping[str, Any], key: str) -> int:
    """Return a number in a record, or 0."""
    value = record.get(key)
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""
