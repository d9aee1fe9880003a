"""The command of a user's that is asked in place of a person: one line in, at most one line out, and an end.

It gets its question on standard input and never as an argument, so a shell in it has nothing to interpret.
"""

import shlex
from collections.abc import Sequence

from clawker_fw.errors import UsageError
from clawker_fw.programs import Bounds, run_to_end

_MOST_OCTETS = 1_000
"""Of its answer. Every answer that means something is far shorter."""


class CommandError(Exception):
    """The command has given no answer: it failed, took too long, or printed more than one short line."""


def parse_command(text: str) -> tuple[str, ...]:
    """Split a command line into words, as a shell does. No shell runs it.

    Raises:
        UsageError: when it has no words, or a quotation that does not end.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError("usage", f"--exec can't be read: {error}.", hint="Quote it as for a shell.") from error
    if not words:
        raise UsageError("usage", "--exec names no command.", hint="Example: --exec ./ask-in-chat")
    return words


def ask_command(command: Sequence[str], question: str, seconds: float) -> str:
    """Run a command with a question on its standard input, and return the line that it prints, or "".

    It is killed after so many seconds, or if this is interrupted. What it prints counts only if it succeeds.

    Raises:
        CommandError: when it gives no answer.
    """
    try:
        ended = run_to_end(command, Bounds(seconds, _MOST_OCTETS), given=f"{question}\n".encode())
    except TimeoutError as error:
        raise CommandError(f"it has not ended after {seconds:g} s, and was killed") from error
    except OSError as error:
        raise CommandError(f"it can't be started: {error.strerror}") from error
    lines = ended.output.decode(errors="backslashreplace").strip().splitlines()
    if len(ended.output) > _MOST_OCTETS or len(lines) > 1:
        raise CommandError("it printed more than one short line")
    if ended.status:
        raise CommandError(f"it failed with status {ended.status}")
    return lines[0] if lines else ""
