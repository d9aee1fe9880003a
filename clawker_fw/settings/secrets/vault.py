"""Secrets in memory, obtained when they are first needed, and again when they are due.

A source that fails later leaves what it gave last in use for as long again as it was meant to be: then it is gone.
All due sources are asked in parallel, and a failing source at growing intervals.
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
"""How many times its `refresh` a secret is used whose source fails."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
"""How long a source is left alone that fails: as long as it has been failing, within these bounds."""

_STEADY: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that cannot be set. Linux has one that goes on while the machine sleeps, as a secret's age does."""


def steady_clock() -> float:
    """Return seconds since some moment."""
    return time.clock_gettime(_STEADY)


@dataclass(slots=True)
class _Kept:
    value: str = field(repr=False)
    expires: float
    """When it is used no longer, if its source fails until then."""


@dataclass
class Vault:
    """The secrets of one file, and the problems of their sources, by name. Times are those of its clock."""

    declared: SecretsFile
    path: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    clock: Callable[[], float] = field(default=steady_clock, repr=False)
    content: bytes = field(default=b"", repr=False)
    """The file as it was read."""
    problems: dict[str, SettingsError] = field(default_factory=dict, init=False)
    expired: set[str] = field(default_factory=set, init=False)
    """The names of those that were obtained, and have been used for as long as they may be."""
    _kept: dict[str, _Kept] = field(default_factory=dict, init=False, repr=False)
    _due: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    """When each source is to be asked again."""
    _failing: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    """Since when each source fails that does."""

    def values(self, wanted: Iterable[WantedSecret]) -> dict[str, str]:
        """Return the whole value of each header, by id. What can't be obtained is left out, and in `problems`."""
        secrets = tuple(wanted)
        self._ask({secret.name for secret in secrets})
        return {
            secret.identity: header_value(kept.value, secret.form)
            for secret in secrets
            if (kept := self._kept.get(secret.name))
        }

    def require(self, wanted: Collection[WantedSecret]) -> dict[str, str]:
        """Return the same, if all can be obtained.

        Raises:
            SettingsError: when one can't.
        """
        found = self.values(wanted)
        for each in wanted:
            if problem := self.problems.get(each.name):
                raise problem
        return found

    @property
    def due(self) -> float | None:
        """When a source should be asked again, or a secret is gone; None if nothing has to be done."""
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
        for name in [each for each, kept in self._kept.items() if self.clock() >= kept.expires]:
            del self._kept[name]
            self.expired.add(name)


def opened(path: Path) -> Vault:
    """Return the secrets of a user's file: those that this process knows, if it says what it said before.

    Raises:
        RefusedError: when somebody else can use the file.
        SettingsError: when it can't be read.
    """
    return known(path, read_owned(path))


@functools.lru_cache(maxsize=1)
def known(path: Path, content: bytes) -> Vault:
    """Return the secrets of a file with this content: the same ones as before for as long as it stays.

    Raises:
        SettingsError: when it says something that can't be meant.
    """
    return Vault(parse_declared(content, path), path, content=content)
