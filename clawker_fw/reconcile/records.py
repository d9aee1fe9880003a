"""Records in the siblings' volumes, which show from any machine how a stack came about.

A changed record replaces no sibling. The **origin** says which settings a stack was made from, so that others are
not applied by accident. Settings are the same if they have the same content or are the same file. In a container,
the file is the mounted one on the Docker host, and the machine is that host: each new container has another name.
A file that is not mounted, such as a Swarm config, counts by its path in the container.

The **attempt** is the last failed one. It disappears with a replaced sibling, or after a successful attempt.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError, FirewallError, RefusedError
from clawker_fw.model.engines import Inside
from clawker_fw.model.files import File
from clawker_fw.model.observed import Attempt, Observed, ObservedSibling
from clawker_fw.model.origin import Origin, ShippedPreset
from clawker_fw.stack.container import ATTEMPT, NO_ATTEMPT, ORIGIN, read_attempt, recorded_origin, state_record


def origin(
    source: Path | None,
    project: str | None,
    digest: str,
    presets: Iterable[ShippedPreset] = (),
    *,
    inside: Inside | None = None,
    group: str | None = None,
) -> Origin:
    """Return the origin of settings that were read on this machine, or `inside` a container of the engine."""
    path = os.path.realpath(source) if source else ""
    if inside and path:
        path = inside.on_host(path) or path
    return Origin(path, this_host(inside), project, digest, tuple(presets), group)


def this_host(inside: Inside | None) -> str:
    """Return this machine's name, or the Docker host's from `inside` a container."""
    return (inside.host if inside else "") or os.uname().nodename


def recorded_origins(observed: Observed) -> tuple[Origin, ...]:
    """Return the recorded origins: none without a record, two if the siblings disagree."""
    origins = (recorded_origin(sibling.files) for sibling in observed.siblings.values())
    return tuple(dict.fromkeys(origin for origin in origins if origin))


def other_origins(observed: Observed, now: Origin | None) -> tuple[Origin, ...]:
    """Return the recorded origins with other content than `now`, in another file or on another machine."""
    return tuple(origin for origin in recorded_origins(observed) if now is not None and not _are_same(origin, now))


def _are_same(one: Origin, other: Origin) -> bool:
    same_file = (one.path, one.host, one.group) == (other.path, other.host, other.group)
    return same_file or one.digest == other.digest


def require_same_origin(observed: Observed, now: Origin | None) -> None:
    """Require that a stack was made from these settings, or from this file, or has no record.

    Raises:
        RefusedError: if it was made from others.
    """
    if made_from := other_origins(observed, now):
        raise RefusedError(
            "settings-other",
            "This stack was made from another settings file.",
            context=[*(f"made from {origin}" for origin in made_from), f"this is {now}"],
            hint="Use that file with --config, choose another stack with --project, "
            "or make this file the stack's own with --adopt.",
        )


def keep_origin(engine: EngineWriter, observed: Observed, now: Origin | None) -> None:
    """Record the origin of a stack's settings."""
    if now is not None:
        _keep(engine, observed.siblings.values(), ORIGIN, state_record(now))


def last_attempt(observed: Observed) -> Attempt | None:
    """Return the last attempt if it failed, or None."""
    attempts: list[Attempt] = []
    for sibling in observed.siblings.values():
        with suppress(ValueError):
            attempt = read_attempt(sibling.files.get(ATTEMPT, NO_ATTEMPT).content)
            attempts += [attempt] if attempt else []
    return max(attempts, key=lambda attempt: attempt.at, default=None)


def keep_attempt(engine: EngineWriter, observed: Observed, error: FirewallError) -> None:
    """Record a failed attempt."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    attempt = Attempt(at, error.code, error.message, tuple(error.context))
    _keep(engine, observed.siblings.values(), ATTEMPT, state_record(attempt))


def forget_attempts(engine: EngineWriter, observed: Observed) -> None:
    """Record a success after a failed attempt."""
    siblings = [sibling for sibling in observed.siblings.values() if ATTEMPT in sibling.files]
    _keep(engine, siblings, ATTEMPT, NO_ATTEMPT)


def _keep(engine: EngineWriter, siblings: Iterable[ObservedSibling], path: str, record: File) -> None:
    """Write a record where it differs. Engine errors are ignored: the next run writes it again."""
    for sibling in siblings:
        if sibling.files.get(path) != record:
            with suppress(EngineError):
                engine.put_files(sibling.container.id, {path: record})
