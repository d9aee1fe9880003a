"""Whether the installed release is still the running one: code of two releases must not be mixed."""

from clawker_fw.errors import RefusedError
from clawker_fw.stack.release import Release


class Installed:
    """A release as it was when the watcher started. Every installer puts a new file in place of each one."""

    def __init__(self, release: Release) -> None:
        self._file = release.package / "__init__.py"
        self._before = self._state()

    def _state(self) -> tuple[int, int, int]:
        status = self._file.stat()
        return status.st_size, status.st_mtime_ns, status.st_ino

    def require_same(self) -> None:
        """Raise RefusedError if any release has been installed since, as far as its file can be examined."""
        try:
            if self._state() == self._before:
                return
        except (FileNotFoundError, NotADirectoryError):
            pass  # removed, or being replaced
        except OSError:
            return
        raise RefusedError(
            "release-changed",
            "Another release has been installed since this watcher started.",
            hint="Restart the watcher. A service manager does this automatically.",
        )
