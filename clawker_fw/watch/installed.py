"""Whether the installed release is still the running one: code of two releases must not be mixed."""

from collections.abc import Iterator
from pathlib import Path

from clawker_fw.errors import RefusedError
from clawker_fw.stack.release import Release


class Installed:
    """The files of a release when the watcher started, identified by size, modification time and inode."""

    def __init__(self, release: Release) -> None:
        """Record the files as they are now."""
        self._release = release
        self._before = frozenset(self._files())

    def require_same(self) -> None:
        """Require that no file of the release has changed.

        Raises:
            RefusedError: when another release has been installed, or the same one again.
        """
        try:
            if frozenset(self._files()) == self._before:
                return
        except OSError:
            pass  # a file was removed in between
        raise RefusedError(
            "release-changed",
            "Another release has been installed since this watcher started.",
            hint="Restart the watcher. A service manager does this by itself.",
        )

    def _files(self) -> Iterator[tuple[str, int, int, int]]:
        for folder in {self._release.package, self._release.templates}:
            yield from _states(folder)


def _states(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    for file in folder.rglob("*"):
        if "__pycache__" not in file.parts and file.is_file():
            state = file.stat()
            yield str(file), state.st_size, state.st_mtime_ns, state.st_ino
