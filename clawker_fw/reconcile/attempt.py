"""The last attempt to close what differs, when it failed: kept with what serves, so that all who look see it.

It lies in the volume of a sibling that serves, beside what `fwctl` keeps there. A sibling that is replaced takes
it along; otherwise the next attempt that succeeds ends it.
"""

from contextlib import suppress
from datetime import UTC, datetime

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError, FirewallError
from clawker_fw.model import Attempt, Observed
from clawker_fw.stack.container import ATTEMPT, NO_ATTEMPT, attempt_record, read_attempt


def failed(error: FirewallError) -> Attempt:
    """Return the attempt that has just ended with an error."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Attempt(at, error.code, error.message, tuple(error.context))


def last(observed: Observed) -> Attempt | None:
    """Return the last attempt when it failed; None when it did not, or nothing tells."""
    found: list[Attempt] = []
    for seen in observed.siblings.values():
        with suppress(ValueError):
            attempt = read_attempt(seen.files.get(ATTEMPT, NO_ATTEMPT).content)
            found += [attempt] if attempt else []
    return max(found, key=lambda attempt: attempt.at, default=None)


def keep(engine: EngineWriter, observed: Observed, attempt: Attempt | None) -> None:
    """Record how an attempt ended, None for well. An engine that fails here has failed before, and was told of."""
    record = attempt_record(attempt) if attempt else NO_ATTEMPT
    for seen in observed.siblings.values():
        if attempt or seen.files.get(ATTEMPT, record) != record:
            with suppress(EngineError):
                engine.put_files(seen.container.id, {ATTEMPT: record})
