"""Which settings file a stack was made from, recorded so that another file is not applied by accident.

The record is a file in the volume of each sibling, next to the state of `fwctl`. A new sibling is created with it,
and a changed record replaces no sibling. A stack without a record, made by an older release, accepts any file.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError, RefusedError
from clawker_fw.model import Observed, Origin, ShippedPreset
from clawker_fw.stack.container import ORIGIN, origin_record, recorded_origin


def origin(source: Path | None, project: str | None, digest: str, presets: Iterable[ShippedPreset] = ()) -> Origin:
    """Return the origin of settings that were read on this machine."""
    path = os.path.realpath(source) if source else ""
    return Origin(path, os.uname().nodename, project, digest, tuple(presets))


def recorded(observed: Observed) -> tuple[Origin, ...]:
    """Return the origins recorded in a stack: none without a record, two if the siblings disagree."""
    return tuple(dict.fromkeys(_recorded(observed)))


def _recorded(observed: Observed) -> Iterator[Origin]:
    for seen in observed.siblings.values():
        if found := recorded_origin(seen.files):
            yield found


def others(observed: Observed, now: Origin | None) -> tuple[Origin, ...]:
    """Return the recorded origins that are another file than `now`, or on another machine."""
    return tuple(
        each for each in recorded(observed) if now is not None and (each.path, each.host) != (now.path, now.host)
    )


def require_same(observed: Observed, now: Origin | None) -> None:
    """Require that a stack was made from this settings file, or has no record.

    Raises:
        RefusedError: when it was made from another file.
    """
    if made_from := others(observed, now):
        raise RefusedError(
            "settings-other",
            "This stack was made from another settings file.",
            context=[*(f"made from {each}" for each in made_from), f"now given {now}"],
            hint="Use that file with --config, choose another stack with --project, "
            "or make this file the stack's own with --adopt.",
        )


def keep(engine: EngineWriter, observed: Observed, now: Origin | None) -> None:
    """Record the origin of a stack's settings. Engine errors are ignored: the next run records it again."""
    if now is None:
        return
    record = origin_record(now)
    for seen in observed.siblings.values():
        if seen.files.get(ORIGIN) != record:
            with suppress(EngineError):
                engine.put_files(seen.container.id, {ORIGIN: record})
