"""A refusal, as the siblings write it down: one line of JSON, of Envoy, CoreDNS or the helper beside them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from clawker_fw.denials.tally import Gap, Tally
from clawker_fw.model import Sibling
from clawker_fw.rules.reasons import Reason

_BY_PATH = {Reason.PATH, Reason.NO_WEBSOCKET}
"""Reasons that depend on the path of a request, so that each path has an answer of its own."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an agent was refused: which sibling refused to which address what it asked for, and why.

    `protocol` is that of the record: `dns`, `tls`, `http`, `tcp` or `udp`. `name` is empty where nothing named a
    host; then `tried` may be the address that the agent connected to. `reason` is a word of `Reason`, or of
    another release. `method` is that of an HTTP request, and `path` its path, if the request was judged by it.
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
    """How often something was refused, when last (RFC 3339), and what differed.

    `request` is the method and path of the last one, `types` are the types of records that were asked for, and
    `upstream` is the address to which Envoy was about to connect.
    """

    refusal: Refusal
    times: int = 0
    last: str = ""
    request: str = ""
    upstream: str = ""
    types: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Refusals:
    """All that was refused, the latest last.

    `more` is how many refusals could only be counted, because too many different things were refused, and
    `suppressed` how many were never written down, by the agent's address, or `UNKNOWN_AGENT`. `gaps` are where
    lines of a sibling's log are missing.
    """

    counted: tuple[Counted, ...]
    more: int = 0
    suppressed: Mapping[str, int] = field(default_factory=dict)
    gaps: tuple[tuple[Sibling, Gap], ...] = ()


def read_tallies(tallies: Sequence[tuple[Sibling, Tally]]) -> Refusals:
    """Read the different lines of the siblings, and count together what only differs in details."""
    found: dict[Refusal, Counted] = {}
    suppressed: Counter[str] = Counter()
    for sibling, tally in tallies:
        suppressed += tally.suppressed
        for body, times, last in tally:
            _add(found, sibling, body, times, last)
    counted = tuple(sorted(found.values(), key=lambda each: each.last))
    gaps = tuple((sibling, gap) for sibling, tally in tallies for gap in tally.gaps)
    return Refusals(counted, sum(tally.more for _, tally in tallies), suppressed, gaps)


def read_lines(sibling: Sibling, lines: list[bytes]) -> Iterator[Counted]:
    """Yield the refusals in some lines of a log, one by one."""
    for line in lines:
        tally = Tally()
        tally.add([line])
        yield from read_tallies([(sibling, tally)]).counted


def _add(found: dict[Refusal, Counted], sibling: Sibling, body: bytes, times: int, last: str) -> None:
    record: Any = None
    with suppress(ValueError, RecursionError):
        record = json.loads(body)
    if not isinstance(record, dict) or "reason" not in record:
        return
    name = _text(record, "name").lower()
    refusal = Refusal(
        sibling,
        _text(record, "source"),
        _text(record, "protocol"),
        name,
        _number(record, "port"),
        _text(record, "reason"),
        "" if name else _text(record, "address"),
        _text(record, "method"),
        _text(record, "path") if _text(record, "reason") in _BY_PATH else "",
    )
    counted = found.get(refusal)
    if counted is None:
        counted = found[refusal] = Counted(refusal)
    counted.times += times
    if last >= counted.last:
        counted.last = last
        counted.request = f"{_text(record, 'method')} {_text(record, 'path')}".strip()
        counted.upstream = _text(record, "upstream").partition(":")[0]
    if kind := _text(record, "type"):
        counted.types.add(kind)


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _number(record: Mapping[str, Any], key: str) -> int:
    value = record.get(key)
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0
