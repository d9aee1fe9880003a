"""Whether the installed release is still the running one: code of two releases must not be mixed."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from clawker_fw.errors import RefusedError
from clawker_fw.stack.release import Release

LOG = logging.getLogger("clawker_fw")


class Installed:
    """The files of a release when the watcher started, identified by size, modification time and inode."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._before = frozenset(_states(release.package))

    def require_same(self) -> None:
        """Require that no file of the release has changed. Nothing is known while they can't be examined.

        Raises:
            RefusedError: when another release has been installed, or the same one again.
        """
        try:
            if frozenset(_states(self._release.package)) == self._before:
                return
        except (FileNotFoundError, NotADirectoryError):
            pass  # a file was removed in between
        except OSError as error:
            line = f"the files of this release can't be examined: {error.strerror}"
            LOG.warning("release_unread", extra={"line": line})
            return
        raise RefusedError(
            "release-changed",
            "Another release has been installed since this watcher started.",
            hint="Restart the watcher. A service manager does this by itself.",
        )


def _states(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    """Yield the path, size, modification time and inode of each file, except bytecode.

    Raises:
        OSError: when a folder or file can't be examined. `Path.rglob` hides that in some versions of Python.
    """
    for place, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = [each for each in folders if each != "__pycache__"]
        for name in names:
            file = Path(place, name)
            state = file.stat()
            yield str(file), state.st_size, state.st_mtime_ns, state.st_ino


def _fail(error: OSError) -> NoReturn:
    raise error
