"""Debouncing of settings: a file that has just been changed may be half written, and is not applied yet."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from clawker_fw.errors import SettingsError, unreadable_settings

STEADY_SECONDS = 1.0
"""How long settings must be unchanged before a watcher applies them."""

_State = tuple[int, int, int]


class Steady:
    """Checks that files have been unchanged for long enough.

    A file's ctime is set by the kernel (inode(7)) and can't be forged. If this machine's clock has been set back
    since, the time for which this process has seen the file unchanged counts instead.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        """Start without having seen any file."""
        self._clock = clock
        self._wall = wall
        self._seen: dict[Path, tuple[_State, float]] = {}

    def require(self, files: Iterable[Path]) -> None:
        """Require that none of the files, which have just been read, was changed within the last second.

        Raises:
            SettingsError: when one was changed too recently, or can't be read.
        """
        for file in files:
            try:
                found = file.stat()
            except OSError as error:
                raise unreadable_settings(file, error) from error
            state = (found.st_ctime_ns, found.st_ino, found.st_size)
            if self._seen.get(file, (None, 0.0))[0] != state:
                self._seen[file] = (state, self._clock())
            by_kernel = self._wall() - found.st_ctime_ns / 1e9
            if max(by_kernel, self._clock() - self._seen[file][1]) < STEADY_SECONDS:
                raise SettingsError(
                    "settings-changing",
                    f"{file} has just been changed. It is applied once it has been unchanged for a second.",
                )
