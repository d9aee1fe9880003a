"""The errors that users meet: what happened, where, what to do, and the exit code.

An error is raised where it happens, with `from`; caught once, in `cli/app.py`; and printed by `report`. An error
never prints and never exits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

_MOST_SHOWN = 10


class ExitCode(IntEnum):
    """The exit codes, which are part of the interface (70 and 74 are those of sysexits.h)."""

    CURRENT = 0
    DRIFT = 1
    USAGE = 2
    SETTINGS = 3
    ENGINE = 4
    NOT_PROVEN = 5
    REFUSED = 6
    BUG = 70
    OUTPUT = 74
    INTERRUPTED = 130


class FirewallError(Exception):
    """A kebab-case code, one sentence, context lines that show where, and a hint on what to do.

    `context` lines are facts (a file and line, a name, a program's last output). `hint` is advice.
    """

    exit_code = ExitCode.BUG

    def __init__(self, code: str, message: str, *, context: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = tuple(context)
        self.hint = hint

    @property
    def in_one_line(self) -> str:
        """The message and its context in one line."""
        return " ".join(filter(None, (self.message, "; ".join(self.context))))

    @property
    def fields(self) -> dict[str, object]:
        """The fields of a log record about it, without the hint."""
        return {"code": self.code, "message": self.message, "context": list(self.context)}


class UsageError(FirewallError):
    """The command line is invalid; nothing has been done."""

    exit_code = ExitCode.USAGE


class SettingsError(FirewallError):
    """The settings or rules can't be used; nothing has been applied."""

    exit_code = ExitCode.SETTINGS


class MistakesError(SettingsError):
    """The settings have several mistakes. `context` has the first few of them."""

    def __init__(self, code: str, message: str, *, mistakes: Sequence[str], hint: str = "") -> None:
        more = len(mistakes) - _MOST_SHOWN
        rest = [f"and {more:,} more; `clawker-fw rules check` shows all"] if more > 0 else []
        super().__init__(code, message, context=[*mistakes[:_MOST_SHOWN], *rest], hint=hint)
        self._mistakes = tuple(mistakes)

    def in_full(self) -> SettingsError:
        """Return the error with every mistake."""
        return SettingsError(self.code, self.message, context=self._mistakes, hint=self.hint)


class EngineError(FirewallError):
    """The engine can't be reached, is too old, or answered with an error."""

    exit_code = ExitCode.ENGINE


class NotFoundError(EngineError):
    """The requested object is not on the engine."""


class ConflictError(EngineError):
    """The name is taken on the engine."""


class DiskFullError(EngineError):
    """There is no room on the disk that has the engine's data."""


class SubnetTakenError(EngineError):
    """Another network has a part of a subnet: it has come since this machine looked."""


class NotProvenError(FirewallError):
    """A change was applied but not proven live, and taken back if it could be: the error says what serves."""

    exit_code = ExitCode.NOT_PROVEN


class RefusedError(FirewallError):
    """The change is refused: a resource is not ours, or another run holds the lock."""

    exit_code = ExitCode.REFUSED


class LockLostError(RefusedError):
    """Another run has taken the lock. This run must neither continue nor undo anything."""


class OutputError(FirewallError):
    """The command has done its work, but its answer could not be written."""

    exit_code = ExitCode.OUTPUT


class StoppedError(FirewallError):
    """The user asked to stop; the current step was finished, and the next run completes the rest."""

    exit_code = ExitCode.INTERRUPTED


@contextmanager
def after(first: BaseException | None, what: str) -> Iterator[None]:
    """Clean up without masking an earlier error.

    An error during cleanup becomes a line in the first one's context, after `what` failed. Without a first one it
    is raised. A lost lock is always raised, because it explains the first error.
    """
    try:
        yield
    except LockLostError:
        raise
    except FirewallError as second:
        if first is None:
            raise
        line = f"{what}: {second.in_one_line}"
        if isinstance(first, FirewallError):
            first.context = (*first.context, line)
        else:
            first.add_note(line)


def unreadable_settings(path: Path, error: Exception) -> SettingsError:
    """Return the error that a settings file can't be read."""
    return SettingsError(
        "settings-unreadable",
        f"{path} can't be read: {error}.",
        hint="It has to be a file in UTF-8 that the user of this command may read.",
    )


def unwritable_settings(path: Path, error: Exception) -> SettingsError:
    """Return the error that a settings file can't be written."""
    return SettingsError(
        "settings-unwritable",
        f"{path} can't be written: {error}.",
        hint="The user of this command must be able to write the file and its folder: it is replaced at once."
        if isinstance(error, PermissionError)
        else "",
    )
