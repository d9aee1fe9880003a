"""Every error a user can meet: what happened, where, what to do, and the exit code.

An error is raised deep with `from`, caught once in `cli/app.py`, and printed by `report`. It never prints and
never exits by itself.

    FirewallError                      70  a bug, if nothing more precise fits
    ├── UsageError                      2  a command line that makes no sense
    ├── SettingsError                   3  settings or rules that can't be used
    ├── EngineError                     4  the engine can't be reached, is too old, or failed
    │   ├── NotFoundError               4  what was asked for is not on the engine
    │   └── ConflictError               4  the name is taken
    ├── NotProvenError                  5  applied but not proven live; what served before still serves
    ├── RefusedError                    6  not ours to touch, or somebody else is at work
    │   └── LockLostError               6  another run has taken over in the middle of this one
    ├── OutputError                    74  done, but its answer can't be written
    └── StoppedError                  130  stopped between two steps, as the user asked
"""

from collections.abc import Sequence
from enum import IntEnum


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
    """One sentence with a kebab-case code, the lines that show where, and a hint what to do.

    `context` lines are facts (a file and line, a name, a program's last words), `hint` is advice.
    """

    exit_code = ExitCode.BUG

    def __init__(self, code: str, message: str, *, context: Sequence[str] = (), hint: str = "") -> None:
        """Keep the parts apart; `report` puts them together."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = tuple(context)
        self.hint = hint


class UsageError(FirewallError):
    """A command line that makes no sense; nothing has been done."""

    exit_code = ExitCode.USAGE


class SettingsError(FirewallError):
    """Settings or rules that can't be used; nothing has been applied."""

    exit_code = ExitCode.SETTINGS


class EngineError(FirewallError):
    """The engine can't be reached, is too old, or answered with an error."""

    exit_code = ExitCode.ENGINE


class NotFoundError(EngineError):
    """What was asked for is not on the engine."""


class ConflictError(EngineError):
    """The name is taken on the engine."""


class NotProvenError(FirewallError):
    """A change was made but not proven live; what served before still serves."""

    exit_code = ExitCode.NOT_PROVEN


class RefusedError(FirewallError):
    """The tool declines: a resource is not ours, or another run holds the lock."""

    exit_code = ExitCode.REFUSED


class LockLostError(RefusedError):
    """Another run has taken the lock over: from here on everything is its to do, and to undo."""


class OutputError(FirewallError):
    """What was asked for is done, but the answer could not be written."""

    exit_code = ExitCode.OUTPUT


class StoppedError(FirewallError):
    """The user asked to stop; the step in hand was finished, and the next run does what is left."""

    exit_code = ExitCode.INTERRUPTED
