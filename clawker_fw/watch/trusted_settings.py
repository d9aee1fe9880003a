"""Choose a watcher's settings: the current ones, unless an agent could have written them or they are too fresh.

If an agent could have, the last good ones apply, unless a person has applied others since: these stay in force.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from clawker_fw.agents.exposure import HINT, Exposure, exposures
from clawker_fw.errors import SettingsError, unreadable_settings
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.observed import Observed
from clawker_fw.reconcile import records
from clawker_fw.reconcile.desired_state import Blueprint


class Memory(Protocol):
    """The last good settings, which outlive a watcher, in a file that only the user can read and write."""

    @property
    def path(self) -> Path:
        """The file."""

    def keep(self, applied: frozenset[str]) -> None:
        """Save the settings that were just read. `applied` are the digests of the recorded ones."""

    def recall(self, facts: EngineFacts) -> tuple[Blueprint, frozenset[str]] | None:
        """Return the saved settings, checked again, or None if they are unusable."""


class Trust:
    """Remembers the last good settings, and the mounts through which an agent could have changed them since."""

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory
        self._recalled = False
        """Whether the good settings are from an earlier watcher."""
        self._good: Blueprint | None = None
        self.open: tuple[Exposure, ...] = ()
        """How an agent can write the settings, or could since they were last good."""
        self._applied: frozenset[str] = frozenset()
        """The digests of the applied settings when the good ones were accepted."""

    def good(self, facts: EngineFacts) -> Blueprint | None:
        """Return the last good settings for the engine's current facts, without expired rules."""
        if self._good is None and self._memory and (kept := self._memory.recall(facts)):
            (self._good, self._applied), self._recalled = kept, True
        if self._good is not None:
            rules = self._good.rules.at(time.time())
            self._good = dataclasses.replace(self._good, engine=facts, rules=rules, last_good=True)
        return self._good

    def holds(self, observed: Observed) -> bool:
        """Whether the last good settings are usable: no agent can write their file."""
        if self._recalled and self._memory and exposures(observed, [self._memory.path]):
            self._good, self._recalled = None, False
            self._applied = frozenset()
        return self._good is not None

    def notice(self, observed: Observed, blueprint: Blueprint) -> None:
        """Record the agents that can write the settings. If none can, earlier ones stay recorded."""
        self.open = exposures(observed, blueprint.files) or self.open

    def require_latest(self, observed: Observed) -> None:
        """Raise SettingsError if the stack's record names settings that were applied after the good ones."""
        good = self._good.origin.digest if self._good and self._good.origin else ""
        if _applied(observed) - self._applied - {good}:
            raise SettingsError(
                "settings-superseded",
                "Other settings have been applied since, so the earlier ones are not restored.",
                hint="Run `clawker-fw reload` with the settings that you want to keep.",
            )

    def accept(self, fresh: Blueprint, observed: Observed) -> None:
        """Accept settings as good. Settings that `run` or `reload` applied are good, wherever their file is.

        Raises:
            SettingsError: if the settings have changed, and an agent could have changed them.
        """
        self.notice(observed, fresh)
        applied = _applied(observed)
        digest = fresh.origin.digest if fresh.origin else None
        before = self._good.origin.digest if self._good and self._good.origin else None
        if self.open and digest not in {*applied, before}:
            raise SettingsError(
                "settings-open",
                "The settings file has changed, but an agent can write it, so the change is not applied.",
                context=[str(exposure) for exposure in self.open],
                hint=f"{HINT} If you made the change, apply it with `clawker-fw reload`.",
            )
        if digest in applied and not exposures(observed, fresh.files):
            self.open = ()
        self._good, self._recalled = fresh, False
        self._applied = applied
        if self._memory:
            self._memory.keep(applied)


def _applied(observed: Observed) -> frozenset[str]:
    return frozenset(origin.digest for origin in records.recorded_origins(observed))


STEADY_SECONDS = 1.0
"""How long settings must be unchanged before a watcher applies them."""


class Steady:
    """Checks that files were not changed lately, because a fresh one may be half written.

    The kernel sets a file's ctime (inode(7)), so it can't be forged. If the clock has been set back, the time for
    which this process has seen the file unchanged counts instead.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._states: dict[Path, tuple[tuple[int, int, int], float]] = {}

    def require(self, files: Iterable[Path]) -> None:
        """Raise SettingsError if one of these files was changed within the last second, or can't be read."""
        for file in files:
            try:
                status = file.stat()
            except OSError as error:
                raise unreadable_settings(file, error) from error
            state = (status.st_ctime_ns, status.st_ino, status.st_size)
            if self._states.get(file, (None, 0.0))[0] != state:
                self._states[file] = (state, self._clock())
            by_kernel = self._wall() - status.st_ctime_ns / 1e9
            if max(by_kernel, self._clock() - self._states[file][1]) < STEADY_SECONDS:
                raise SettingsError(
                    "settings-changing",
                    f"{file} has just been changed. It is applied once it has been unchanged for a second.",
                )
