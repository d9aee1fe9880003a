"""Secrets in memory, obtained when they are first needed, and again when they are due.

A source that fails later leaves what it gave last in use for as long again as it was meant to be: then it is gone.
"""

import functools
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clawker_fw.errors import SettingsError
from clawker_fw.settings.secrets.declared import SecretEntry, SecretsFile, parse_declared, read_owned
from clawker_fw.settings.secrets.sources import header_value, obtain
from clawker_fw.settings.secrets.wanted import WantedSecret

FORGOTTEN_AFTER = 2.0
"""How many times its `refresh` a secret is used whose source fails."""


@dataclass(slots=True)
class _Kept:
    value: str = field(repr=False)
    obtained: float
    due: float
    """When its source is to be asked again: earlier than it was meant, if nothing came of it."""


@dataclass
class Vault:
    """The secrets of one file, and the problems of their sources, by name. Times are in seconds since 1970."""

    declared: SecretsFile
    path: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    clock: Callable[[], float] = field(default=time.time, repr=False)
    problems: dict[str, SettingsError] = field(default_factory=dict, init=False)
    expired: set[str] = field(default_factory=set, init=False)
    """The names of those that were obtained, and have been used for as long as they may be."""
    _kept: dict[str, _Kept] = field(default_factory=dict, init=False, repr=False)

    def values(self, wanted: Iterable[WantedSecret]) -> dict[str, str]:
        """Return the whole value of each header, by id. What can't be obtained is left out, and in `problems`."""
        found = {}
        for each in wanted:
            value = self._value(each.name)
            if value is not None:
                found[each.identity] = header_value(value, each.form)
        return found

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
        """When a source should be asked again; None if none has to be."""
        return min((each.due for each in self._kept.values()), default=None)

    def forget(self, name: str = "") -> None:
        """Forget a secret, or all: the next time, its source is asked."""
        for each in [name] if name else list(self._kept):
            self._kept.pop(each, None)

    def _value(self, name: str) -> str | None:
        now, entry, kept = self.clock(), self.declared.secrets[name], self._kept.get(name)
        if kept is None or now >= kept.due:
            kept = self._asked(name, entry, kept, now)
        return kept.value if kept else None

    def _asked(self, name: str, entry: SecretEntry, kept: _Kept | None, now: float) -> _Kept | None:
        """Ask a source, and keep what it gives."""
        refresh = entry.refresh or float("inf")
        try:
            value = obtain(name, entry, self.path.parent, self.environment).value
        except SettingsError as error:
            self.problems[name] = error
            if kept and now < kept.obtained + FORGOTTEN_AFTER * refresh:
                kept.due = min(now + refresh / 10, kept.obtained + FORGOTTEN_AFTER * refresh)
                return kept
            if self._kept.pop(name, None):
                self.expired.add(name)
            return None
        self.expired.discard(name)
        self.problems.pop(name, None)
        self._kept[name] = _Kept(value, now, now + refresh)
        return self._kept[name]


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
    return Vault(parse_declared(content, path), path)
