"""Whether the settings are steady: a file that has just been changed may be changed again, and be half of one."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from clawker_fw.errors import SettingsError

STEADY_SECONDS = 1.0
"""How long settings have to be as they are before a watcher applies them."""

_State = tuple[int, int, int]


class Steady:
    """Watches files for the time that they have to stay the same.

    The time of a file's last change is the kernel's (inode(7)): nobody can set it. Where this machine's clock has
    been set back since, what counts is how long the file has been seen as it is.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        """Begin without having seen a file."""
        self._clock = clock
        self._wall = wall
        self._seen: dict[Path, tuple[_State, float]] = {}

    def require(self, files: Iterable[Path]) -> None:
        """Pass when what has just been read of these files was written long enough before.

        Raises:
            SettingsError: when one has been changed too lately, or is gone.
        """
        for file in files:
            try:
                found = file.stat()
            except OSError as error:
                raise SettingsError("settings-unreadable", f"{file} can't be read: {error}.") from error
            state = (found.st_ctime_ns, found.st_ino, found.st_size)
            if self._seen.get(file, (None, 0.0))[0] != state:
                self._seen[file] = (state, self._clock())
            by_kernel = self._wall() - found.st_ctime_ns / 1e9
            if max(by_kernel, self._clock() - self._seen[file][1]) < STEADY_SECONDS:
                raise SettingsError(
                    "settings-changing", f"{file} has just been changed: it is applied when it stays so."
                )
