"""Which settings a stack was made from, recorded so that others are not applied by accident.

Settings are the same if they have the same content, wherever they are, or if they are the same file, whatever is
in it by now. In a container of the engine, the file is the one on the engine's machine that is mounted there, and
the machine is the engine's: each new container has another name. A file that is not mounted, such as a config of
Swarm, counts by its path in the container.

The record is a file in the volume of each sibling, next to the state of `fwctl`. A new sibling is created with it,
and a changed record replaces no sibling. A stack without a record, made by an older release, accepts any file.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError, RefusedError
from clawker_fw.model import Inside, Observed, Origin, ShippedPreset
from clawker_fw.stack.container import ORIGIN, origin_record, recorded_origin


def origin(
    source: Path | None,
    project: str | None,
    digest: str,
    presets: Iterable[ShippedPreset] = (),
    inside: Inside | None = None,
) -> Origin:
    """Return the origin of settings that were read on this machine, or `inside` a container of the engine."""
    path = os.path.realpath(source) if source else ""
    if inside and path:
        path = inside.on_host(path) or path
    return Origin(path, this_host(inside), project, digest, tuple(presets))


def this_host(inside: Inside | None) -> str:
    """Return the name of this machine, or that of the engine's machine from `inside` a container of it."""
    return (inside.host if inside else "") or os.uname().nodename


def recorded(observed: Observed) -> tuple[Origin, ...]:
    """Return the origins recorded in a stack: none without a record, two if the siblings disagree."""
    return tuple(dict.fromkeys(_recorded(observed)))


def _recorded(observed: Observed) -> Iterator[Origin]:
    for seen in observed.siblings.values():
        if found := recorded_origin(seen.files):
            yield found


def others(observed: Observed, now: Origin | None) -> tuple[Origin, ...]:
    """Return the recorded origins with other content than `now`, in another file or on another machine."""
    return tuple(each for each in recorded(observed) if now is not None and not _are_same(each, now))


def _are_same(one: Origin, other: Origin) -> bool:
    return one.digest == other.digest or (one.path, one.host) == (other.path, other.host)


def require_same(observed: Observed, now: Origin | None) -> None:
    """Require that a stack was made from these settings, or from this file, or has no record.

    Raises:
        RefusedError: when it was made from others.
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
