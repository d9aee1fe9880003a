"""Notices saved settings files, so that a watcher compares soon instead of after its interval."""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

LOOK_EVERY = 0.5
"""In seconds. A check asks the kernel for the state of a few files."""

_State = Mapping[Path, tuple[int, int, int] | None]


class SavedFiles:
    """The current settings files, and their states at the last check."""

    def __init__(self, files: Callable[[], Iterable[Path]], clock: Callable[[], float], steady: float) -> None:
        """Use a function that returns the files. A change counts after `steady` seconds."""
        self._files = files
        self._clock = clock
        self._steady = steady
        self._known: _State = self._states()
        self._pending: _State = {}
        self._since = 0.0

    def changed(self) -> bool:
        """Return whether a file has changed and is no longer being written, once per change."""
        now = self._states()
        # A new file has just been read. Only a file that was known before can have been saved.
        if all(self._known.get(file, state) == state for file, state in now.items()):
            self._known, self._pending = now, {}
            return False
        if now != self._pending:
            self._pending, self._since = now, self._clock()
        if self._clock() - self._since < self._steady:
            return False
        self._known = now
        return True

    def _states(self) -> _State:
        return {file: _state(file) for file in self._files()}


def _state(file: Path) -> tuple[int, int, int] | None:
    """Return the state that changes with a file or a link's target. None if it is unreadable."""
    with suppress(OSError):
        status = file.stat()
        return status.st_ctime_ns, status.st_ino, status.st_size
    return None


def keep_looking(saved: SavedFiles, on_change: Callable[[], object], ended: threading.Event) -> None:
    """Call `on_change` after each change, until `ended` is set."""
    while not ended.wait(LOOK_EVERY):
        if saved.changed():
            on_change()
