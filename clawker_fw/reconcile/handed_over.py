"""Keep a replaced sibling's last refusals.

The engine removes a log with its container. So before a replaced sibling is removed, its last refusals go into its
successor's volume, in the engine's format. This is a convenience: it must not fail or delay a replacement.
"""

import gzip
import json
import zlib
from contextlib import suppress
from typing import Any

from clawker_fw.engine.newest import newest_lines
from clawker_fw.engine.outputs import STAMP, stamp
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import EngineError
from clawker_fw.fwctl import HelperReader, Suppressed
from clawker_fw.stack.container import HANDED_OVER
from clawker_fw.stack.files import public

UNKNOWN_AGENT = ""
"""Replaces the agent's address where it is unknown."""

MOST_REFUSALS = 10_000
_MOST_BYTES = 32 << 20
"""Read at most this much: a line has up to 2 KB."""

_LEVEL = 1
"""Lines are so similar that the quickest compression makes them ten times smaller."""


def hand_over(engine: EngineWriter, predecessor: str, successor: str) -> None:
    """Stop a container, and have its successor keep its last refusals.

    Raises:
        EngineError: if either is gone, or the engine fails.
    """
    suppressed = Suppressed(0)
    with suppress(EngineError):  # it does not run, or its helper is of a release that can't tell
        suppressed = HelperReader(engine, predecessor).suppressed()
    engine.stop(predecessor)  # from now on, nothing more is refused
    lines = handed_over(engine, predecessor)
    written = [(line, _record(line)) for line in _written(engine, predecessor)]
    lines += [line for line, record in written if record and not suppressed.include(record)]
    if lines:
        dropped = {UNKNOWN_AGENT: suppressed.refusals, **suppressed.dropped}
        counts = [{"source": agent, "suppressed": count} for agent, count in dropped.items() if count]
        for record in (*suppressed.counted, *counts):
            text = json.dumps(record, separators=(",", ":"))
            lines.append(stamp(engine.clock()) + b" " + text.encode() + b"\n")
        content = gzip.compress(b"".join(lines[-MOST_REFUSALS:]), _LEVEL, mtime=0)
        engine.put_files(successor, {HANDED_OVER: public(content)})


def _written(engine: EngineWriter, container: str) -> list[bytes]:
    """Return a log's last lines, including those after a cut-off line."""
    with engine.log(container, MOST_REFUSALS) as log:
        lines = [line for some in log for line in some]
    last = max(lines, default=b"")
    return lines + [line for line in newest_lines(engine, container, last) if line > last]


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line[STAMP + 1 :])
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def handed_over(reader: EngineReader, container: str) -> list[bytes]:
    """Return the refusals that a container got from its predecessor, oldest first. An unreadable file has none."""
    file = reader.file(container, HANDED_OVER)
    with suppress(zlib.error):
        if file:
            content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(file.content, _MOST_BYTES)
            return content.splitlines(keepends=True)
    return []
