"""Which settings a stack is made from: kept with what serves, so that others are not taken for them by accident.

The record lies in the volume of each sibling, beside what `fwctl` keeps there. A sibling is born with it, and a
change of it replaces nothing. A stack of a release that kept none has none, and takes the first.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError, RefusedError
from clawker_fw.model import Observed, Origin
from clawker_fw.stack.container import ORIGIN, origin_record


def origin(source: Path | None, project: str | None, digest: str) -> Origin:
    """Return where settings come from that were read on this machine."""
    return Origin(os.path.realpath(source) if source else "", os.uname().nodename, project, digest)


def recorded(observed: Observed) -> tuple[Origin, ...]:
    """Return what a stack was made from: nothing when it does not say, and more than one when it says both."""
    return tuple(dict.fromkeys(_recorded(observed)))


def _recorded(observed: Observed) -> Iterator[Origin]:
    for seen in observed.siblings.values():
        with suppress(KeyError, TypeError, ValueError):
            record = json.loads(seen.files[ORIGIN].content)
            yield Origin(record["path"], record["host"], record["project"], record["digest"])


def others(observed: Observed, now: Origin | None) -> tuple[Origin, ...]:
    """Return those that a stack was made from and that are in another file, or on another machine."""
    return tuple(
        each for each in recorded(observed) if now is not None and (each.path, each.host) != (now.path, now.host)
    )


def require_same(observed: Observed, now: Origin | None) -> None:
    """Pass when a stack was made from these settings, or does not say from which.

    Raises:
        RefusedError: when it was made from another file.
    """
    if made_from := others(observed, now):
        raise RefusedError(
            "settings-other",
            "This stack was made from another settings file.",
            context=[*(f"made from {each}" for each in made_from), f"now given {now}"],
            hint="Give it that file with --config, name another stack with --project, "
            "or hand it over to this file with --adopt.",
        )


def keep(engine: EngineWriter, observed: Observed, now: Origin | None) -> None:
    """Record what a stack is made from now. An engine that fails here has failed before, and was told of."""
    if now is None:
        return
    record = origin_record(now)
    for seen in observed.siblings.values():
        if seen.files.get(ORIGIN) != record:
            with suppress(EngineError):
                engine.put_files(seen.container.id, {ORIGIN: record})
