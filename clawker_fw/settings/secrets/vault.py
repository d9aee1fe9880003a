"""Secrets in memory, obtained when they are first needed, and again when they are due.

A source that fails later leaves what it gave last in use for as long again as it was meant to be: then it is gone.
All sources that are due are asked side by side, and one that fails is asked less and less often.
"""

import functools
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clawker_fw.errors import SettingsError
from clawker_fw.settings.secrets.declared import SecretEntry, SecretsFile, parse_declared, read_owned
from clawker_fw.settings.secrets.sources import Outcome, header_value, obtain_all
from clawker_fw.settings.secrets.wanted import WantedSecret

FORGOTTEN_AFTER = 2.0
"""How many times its `refresh` a secret is used whose source fails."""

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
_SHARE = 10.0
"""How many times as long as it took to fail a source is left alone, within these bounds."""

_AT_ONCE = 1.0
"""In seconds. A variable or a file that fails sooner costs nothing, and is read again with each look."""


_STEADY: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that cannot be set. Linux has one that goes on while the machine sleeps, as a secret's age does."""


def steady_clock() -> float:
    """Return seconds since some moment."""
    return time.clock_gettime(_STEADY)


@dataclass(slots=True)
class _Kept:
    value: str = field(repr=False)
    due: float
    """When its source is to be asked again: earlier than it was meant, if nothing came of it."""
    expires: float
    """When it is used no longer, if its source fails until then."""


@dataclass(slots=True)
class _Failing:
    times: int
    again: float
    """Before that, the source is not asked."""


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
    _failing: dict[str, _Failing] = field(default_factory=dict, init=False, repr=False)

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
        asked = (each.due for each in self._kept.values())
        gone = (kept.expires for name, kept in self._kept.items() if name in self._failing)
        again = (failing.again for name, failing in self._failing.items() if name not in self._kept)
        return min((*asked, *gone, *again), default=None)

    def _ask(self, names: Iterable[str]) -> None:
        now = self.clock()
        asking = {name: self.declared.secrets[name] for name in sorted(names) if self._is_due(name, now)}
        for name, outcome in obtain_all(asking, self.path.parent, self.environment).items():
            if outcome.value is None:
                self._failed(name, self.declared.secrets[name], outcome)
            else:
                refresh = self.declared.secrets[name].refresh or float("inf")
                self._kept[name] = _Kept(outcome.value, now + refresh, now + FORGOTTEN_AFTER * refresh)
                self._failing.pop(name, None)
                self.problems.pop(name, None)
                self.expired.discard(name)

    def _is_due(self, name: str, now: float) -> bool:
        """Whether a source is to be asked. A secret whose source has failed for too long is gone."""
        kept, failing = self._kept.get(name), self._failing.get(name)
        if failing and now < failing.again:
            self._expire(name, now)
            return False
        return kept is None or now >= kept.due

    def _failed(self, name: str, entry: SecretEntry, outcome: Outcome) -> None:
        now, times = self.clock(), self._failing[name].times + 1 if name in self._failing else 1
        pause = max(_SHARE * outcome.seconds, _FIRST_PAUSE * 2.0 ** min(times - 1, 10))
        costs_nothing = entry.source.kind != "command" and outcome.seconds < _AT_ONCE
        self._failing[name] = _Failing(times, now + (0.0 if costs_nothing else min(pause, _LONGEST_PAUSE)))
        if outcome.problem:
            self.problems[name] = outcome.problem
        self._expire(name, now)
        if kept := self._kept.get(name):
            kept.due = max(self._failing[name].again, min(now + (entry.refresh or 0.0) / 10, kept.expires))

    def _expire(self, name: str, now: float) -> None:
        """Forget a secret that has been used for as long as it may be."""
        if (kept := self._kept.get(name)) and now >= kept.expires:
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
