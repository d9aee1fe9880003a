"""Whether the code on disk is still the code that runs: an upgrade must not be mixed with what came before it."""

from collections.abc import Iterator
from pathlib import Path

from clawker_fw.errors import RefusedError
from clawker_fw.stack.release import Release


class Installed:
    """The files of a release, as they were when the watcher began. They are known by what `stat` says of them."""

    def __init__(self, release: Release) -> None:
        """Take in what is there now."""
        self._release = release
        self._before = frozenset(self._files())

    def require_same(self) -> None:
        """Pass while every file is the one that it was.

        Raises:
            RefusedError: when another release, or the same one anew, has been installed.
        """
        try:
            if frozenset(self._files()) == self._before:
                return
        except OSError:
            pass  # a file went away under our eyes
        raise RefusedError(
            "release-changed",
            "The installed release is no longer the one that watches.",
            hint="Start the watcher again. A service manager does so by itself.",
        )

    def _files(self) -> Iterator[tuple[str, int, int, int]]:
        for folder in {self._release.package, self._release.templates}:
            yield from _states(folder)


def _states(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    for file in folder.rglob("*"):
        if "__pycache__" not in file.parts and file.is_file():
            state = file.stat()
            yield str(file), state.st_size, state.st_mtime_ns, state.st_ino
