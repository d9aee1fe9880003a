"""Secrets in memory, obtained when first needed and refreshed when due.

If a source fails later, its last value stays in use for twice its refresh interval. Due sources are asked in
parallel, and failing ones at growing intervals.
"""

import functools
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clawker_fw.errors import SettingsError
from clawker_fw.settings.secrets.declared import SecretsFile, parse_declared, read_owned
from clawker_fw.settings.secrets.sources import header_value, obtain_all
from clawker_fw.settings.secrets.wanted import WantedSecret

FORGOTTEN_AFTER = 2.0
"""How many refresh intervals a secret stays in use while its source fails."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
"""Bounds of the pause before a failing source is asked again; in between, as long as it has been failing."""

_STEADY: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that can't be set. On Linux it also runs while the machine sleeps, when secrets age too."""


def steady_clock() -> float:
    """Return seconds since an arbitrary start."""
    return time.clock_gettime(_STEADY)


@dataclass(slots=True)
class _Kept:
    value: str = field(repr=False)
    expires: float
    """When it stops being used, unless its source is asked successfully before."""


@dataclass
class Vault:
    """The secrets of one file and the errors of their sources, by name. Times are in seconds of `clock`."""

    declared: SecretsFile
    path: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    clock: Callable[[], float] = field(default=steady_clock, repr=False)
    content: bytes = field(default=b"", repr=False)
    """The file's content."""
    problems: dict[str, SettingsError] = field(default_factory=dict, init=False)
    expired: set[str] = field(default_factory=set, init=False)
    """The secrets that were dropped because their sources kept failing."""
    _kept: dict[str, _Kept] = field(default_factory=dict, init=False, repr=False)
    _due: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    """When to ask each source again."""
    _failing: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    """When each failing source began to fail."""

    def values(self, secrets: Collection[WantedSecret]) -> dict[str, str]:
        """Return the header values by id. Secrets that can't be obtained are in `problems` instead."""
        self._ask({secret.name for secret in secrets})
        return {
            secret.identity: header_value(kept.value, secret.form)
            for secret in secrets
            if (kept := self._kept.get(secret.name))
        }

    def require(self, secrets: Collection[WantedSecret]) -> dict[str, str]:
        """Return the header values by id. Raise SettingsError if a secret can't be obtained."""
        values = self.values(secrets)
        for secret in secrets:
            if problem := self.problems.get(secret.name):
                raise problem
        return values

    @property
    def due(self) -> float | None:
        """When to ask a source again or drop a secret; None if there is nothing to do."""
        gone = (kept.expires for name, kept in self._kept.items() if name in self.problems)
        return min((*self._due.values(), *gone), default=None)

    def _ask(self, names: Iterable[str]) -> None:
        now = self.clock()
        asking = {name: self.declared.secrets[name] for name in sorted(names) if now >= self._due.get(name, now)}
        for name, outcome in obtain_all(asking, self.path.parent, self.environment).items():
            if isinstance(outcome, SettingsError):
                self.problems[name] = outcome
                failed = self.clock()
                since = failed - self._failing.setdefault(name, now)
                self._due[name] = failed + min(max(since, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            else:
                refresh = asking[name].refresh or float("inf")
                self._kept[name] = _Kept(outcome, now + FORGOTTEN_AFTER * refresh)
                self._due[name] = now + refresh
                self.problems.pop(name, None)
                self._failing.pop(name, None)
                self.expired.discard(name)
        for name in [key for key, kept in self._kept.items() if self.clock() >= kept.expires]:
            del self._kept[name]
            self.expired.add(name)


def opened(path: Path) -> Vault:
    """Return the secrets of a user's file, reusing the known ones while its content is unchanged.

    Raises:
        RefusedError: when other users can use the file.
        SettingsError: when it can't be read or is invalid.
    """
    return known(path, read_owned(path))


@functools.lru_cache(maxsize=1)
def known(path: Path, content: bytes) -> Vault:
    """Return a file's secrets, the same object until its content changes. Raise SettingsError if it is invalid."""
    return Vault(parse_declared(content, path), path, content=content)
