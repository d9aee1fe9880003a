"""The record of the last failed attempt, kept on the engine, so that `drift` shows it from any machine.

The record is a file in the volume of each serving sibling, next to the state of `fwctl`. It disappears with a
replaced sibling, and with the next attempt that succeeds.
"""

from contextlib import suppress
from datetime import UTC, datetime

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError, FirewallError
from clawker_fw.model import Attempt, Observed
from clawker_fw.stack.container import ATTEMPT, NO_ATTEMPT, attempt_record, read_attempt


def failed(error: FirewallError) -> Attempt:
    """Return the record of an attempt that has just failed."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Attempt(at, error.code, error.message, tuple(error.context))


def last(observed: Observed) -> Attempt | None:
    """Return the last attempt if it failed, or None if it succeeded or there is no record."""
    found: list[Attempt] = []
    for seen in observed.siblings.values():
        with suppress(ValueError):
            attempt = read_attempt(seen.files.get(ATTEMPT, NO_ATTEMPT).content)
            found += [attempt] if attempt else []
    return max(found, key=lambda attempt: attempt.at, default=None)


def keep(engine: EngineWriter, observed: Observed, attempt: Attempt | None) -> None:
    """Record a failed attempt, or None for success. Engine errors are ignored: an earlier one was reported."""
    record = attempt_record(attempt) if attempt else NO_ATTEMPT
    for seen in observed.siblings.values():
        if attempt or seen.files.get(ATTEMPT, record) != record:
            with suppress(EngineError):
                engine.put_files(seen.container.id, {ATTEMPT: record})
